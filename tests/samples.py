"""Catalogues small enough to read, for the tests of the catalogue and the command line."""

from dataclasses import replace
from fractions import Fraction

from ifspace.block import Block
from ifspace.catalogue import Catalogue, Design, Funnel
from ifspace.catalogue.setting import EnumerationSetting

DW_PW = Design(
    channels=16,
    out_channels=16,
    bottleneck=None,
    repeats=1,
    kernel=3,
    stride=1,
    dims=2,
    composition="DW+PW",
    block=Block.parse("DW+PW"),
    params=400,
    macs_per_pixel=400,
    activations_per_pixel=32,
    peak_per_pixel=32,
    params_ratio=400 / 2304,
    macs_ratio=400 / 2304,
    field=(3, 16),
    layers=2,
    least_fan_in=16,
    params_formula="C*F + 9*C",
    field_condition="always",
    irreducible=True,
    published_as="MobileNet",
)
GC_PW = replace(
    DW_PW,
    composition="GC+PW",
    block=Block.parse("GC(8)+PW"),
    params=544,
    macs_per_pixel=544,
    params_ratio=544 / 2304,
    macs_ratio=544 / 2304,
    least_fan_in=2,
    params_formula="C*F + 9*C**2/g_1",
    dominated_by="DW+PW",
    same_as="DW+PW",
    published_as=None,
)
DW_RPW_RPW = replace(
    DW_PW,
    composition="DW+RPW+RPW",
    block=Block.parse("DW+RPW(4,0)+RPW(4,0)"),
    params=272,
    macs_per_pixel=272,
    activations_per_pixel=48,
    params_ratio=272 / 2304,
    macs_ratio=272 / 2304,
    layers=3,
    least_fan_in=4,
    params_formula="C*F/g_2 + C**2/g_1 + 9*C",
    field_condition="C <= s_1*(w_2 - 1) + w_1",
    irreducible=False,
    published_as=None,
)
WIDER = replace(
    DW_PW,
    channels=32,
    out_channels=64,
    bottleneck=Fraction(1, 4),
    repeats=2,
    composition="(PW+DW+PW)x2",
    block=Block.parse("(PW+DW+PW)x2"),
    layers=3,
    params=3872,
    macs_per_pixel=3872,
    activations_per_pixel=192,
    peak_per_pixel=80,
    params_ratio=3872 / 55296,
    macs_ratio=3872 / 55296,
    field=(5, 32),
    published_as=None,
)

SMALL = Catalogue(
    settings=(
        EnumerationSetting(channels=16, max_len=3),
        EnumerationSetting(
            channels=32,
            out_channels=64,
            max_len=3,
            repeats=2,
            kinds=("PW", "DW"),
            bottleneck=Fraction(1, 4),
        ),
    ),
    funnels=(
        Funnel(258, 246, 3, (6, 36, 216), (6, 30, 210), (0, 2, 1), 12, 345, 6),
        Funnel(14, 10, 1, (2, 4, 8), (2, 2, 6), (0, 0, 1)),
    ),
    designs=(GC_PW, DW_PW, DW_RPW_RPW, WIDER),
)
EMPTY = Catalogue((), (), ())
