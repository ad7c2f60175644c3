"""What the papers print, as they print it; numbers as text, for their digits are part of them.

[IF] Optimizing Convolutional Neural Network Architecture via Information Field; [3DRF] An Efficient
Quantitative Approach for Optimizing CNNs; [Layout] Finding the Secret of CNN Parameter Layout under
Strict Size Constraint; [Fog] Penetrating the Fog: the Path to Efficient CNN Models.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from ifspace.block import Block

Widths = tuple[int, ...]

# [IF] Table 1: layer, IF^w, IF^c, IF, gain, at a stage input of 8 x 8 x 128.
FIELDS: Final = ((1, 3, 128, 1152, None), (2, 5, 128, 3200, "1.17"), (3, 7, 128, 6272, "0.29"))
# [IF] Table 2: VGG-11 at 32 x 32 and one more convolution in its stage 1 to 5: the gain, the
# accuracy, what it is above VGG-11's.
BASE_ACCURACY: Final = "92.68"
VARIANTS: Final = (
    ("1.73", "93.56", "0.88"),
    ("1.60", "93.46", "0.78"),
    ("0.29", "92.75", "0.07"),
    ("0.0", "92.58", "-0.10"),
    ("0.0", "92.41", "-0.27"),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """Two rows of [3DRF] Tables 3 to 5: a network and its reorganized form on one data set.

    Parameters in millions, MACs in millions (the paper calls them FLOPs), the gain of the moves,
    top-1 accuracies in percent.
    """

    table: int
    network: str
    data: str
    params: tuple[str, str]
    macs: tuple[str, str]
    gain: str
    accuracy: tuple[str, str]


# [3DRF] Tables 3, 4 and 5; [IF] prints the same counts.
COUNTED: Final = (
    Counted(3, "vgg16", "CIFAR-10", ("14.73", "5.10"), ("310", "370"), "2.30", ("92.64", "92.95")),
    Counted(3, "vgg19", "CIFAR-10", ("20.04", "8.09"), ("400", "490"), "3.13", ("91.91", "92.89")),
    Counted(3, "mobilenet", "CIFAR-10", ("3.22", "1.13"), ("50", "50"), "3.94", ("90.67", "92.05")),
    Counted(
        3, "resnet50", "CIFAR-10", ("23.52", "17.24"), ("1300", "1310"), "0.76", ("93.75", "95.79")
    ),
    Counted(
        4, "vgg16", "CIFAR-100", ("34.02", "24.39"), ("330", "390"), "2.30", ("72.93", "74.64")
    ),
    Counted(
        4, "vgg19", "CIFAR-100", ("39.33", "27.38"), ("420", "500"), "3.13", ("72.23", "74.00")
    ),
    Counted(
        4, "mobilenet", "CIFAR-100", ("3.32", "1.23"), ("50", "50"), "3.94", ("65.98", "71.45")
    ),
    Counted(
        4, "resnet50", "CIFAR-100", ("23.71", "21.89"), ("1310", "1380"), "0.76", ("77.39", "78.25")
    ),
    Counted(
        5, "vgg16", "ImageNet", ("138.36", "133.82"), ("15500", "16900"), "0.39", ("71.59", "72.17")
    ),
    Counted(
        5, "vgg19", "ImageNet", ("143.67", "141.34"), ("19670", "21060"), "1.09", ("72.38", "72.61")
    ),
    Counted(
        5, "mobilenet", "ImageNet", ("4.23", "3.52"), ("580", "570"), "2.59", ("70.60", "71.05")
    ),
    Counted(
        5, "resnet50", "ImageNet", ("25.56", "23.67"), ("4120", "4130"), "0.47", ("76.15", "76.56")
    ),
)
# [3DRF] section 5.1, in the text: blocks of the stages on CIFAR.
DEPTHS: Final = {"mobilenet": (4, 4, 2, 2, 1), "resnet50": (5, 5, 4, 2)}


@dataclass(frozen=True, slots=True)
class Decomposed:
    """A row of [3DRF] Table 6 or [IF] Table 7: a network, and the block of its 3x3 convolutions.

    Parameters and MACs in millions, top-1 accuracy in percent; without a block, the network before.
    """

    table: int
    network: str
    data: str
    name: str
    block: str
    macs: str
    params: str
    accuracy: str

    @property
    def parsed(self) -> Block | None:
        """The block, None for the network before."""
        return Block.parse(self.block) if self.block else None


def _table_6(name: str, block: str, macs: str, params: str, accuracy: str) -> Decomposed:
    return Decomposed(6, "vgg16", "CIFAR-10", name, block, macs, params, accuracy)


# [3DRF] Table 6, the same as [IF] Table 6; [IF] Table 7 (g2, o 50%, says the text).
DECOMPOSED: Final = (
    _table_6("Baseline", "", "370", "9.64", "92.95"),
    _table_6("DW+PW", "DW+PW", "50", "1.11", "92.12"),
    _table_6("DW+GPW-g2", "DW+GPW(2)", "30", "0.67", "92.35"),
    _table_6("DW+GPW-g4", "DW+GPW(4)", "20", "0.36", "88.05"),
    _table_6("DW+GPW-g8", "DW+GPW(8)", "10", "0.20", "86.41"),
    _table_6("DW+RPW-g2-o33%", "DW+RPW(2,0.33)", "30", "0.66", "92.52"),
    _table_6("DW+RPW-g2-o50%", "DW+RPW(2,1/2)", "30", "0.66", "92.70"),
    _table_6("DW+RPW-g4-o33%", "DW+RPW(4,0.33)", "20", "0.36", "91.61"),
    _table_6("DW+RPW-g4-o50%", "DW+RPW(4,1/2)", "20", "0.36", "91.59"),
    _table_6("DW+RPW-g8-o33%", "DW+RPW(8,0.33)", "10", "0.20", "89.86"),
    _table_6("DW+RPW-g8-o50%", "DW+RPW(8,1/2)", "10", "0.20", "90.19"),
    Decomposed(7, "resnet50", "ImageNet", "ResNet50-opt", "", "4130", "23.67", "76.56"),
    Decomposed(
        7,
        "resnet50",
        "ImageNet",
        "ResNet50-opt (DW+RPW)",
        "DW+RPW(2,1/2)",
        "2550",
        "14.34",
        "75.91",
    ),
)


@dataclass(frozen=True, slots=True)
class FogUnit:
    """A row of [Fog] Tables 2 to 4: the paper's name, the same block in our notation, its numbers.

    `inner` is the ratio of the interior width to the output; parameters in millions, top-1 error in
    percent. `depth` counts convolutions: three in each unit, the first layer and the classifier.
    The tables also print the field of a unit, 3 x 3 pixels and as many channels as its width.
    """

    table: int
    name: str
    block: str
    width: int
    params: str
    error: str
    inner: Fraction | None = None
    depth: int | None = None


_QUARTER: Final = Fraction(1, 4)
# [Fog] Tables 2, 3 and 4. A number in parentheses is a number of groups.
UNITS: Final = (
    FogUnit(2, "PW+GConv(1)+PW", "PW+CONV(3)+PW", 128, "13.9", "30.0", _QUARTER, 98),
    FogUnit(2, "PW+GConv(32)+PW", "PW+GC(32)+PW", 256, "13.9", "29.2", _QUARTER, 98),
    FogUnit(2, "PW+GConv(1)+PW", "PW+CONV(3)+PW", 128, "28.4", "29.7", _QUARTER, 194),
    FogUnit(2, "PW+GConv(1)+PW", "PW+CONV(3)+PW", 200, "28.4", "29.3", _QUARTER, 98),
    FogUnit(2, "PW+GConv(2)+PW", "PW+GC(2)+PW", 256, "28.4", "28.7", _QUARTER, 98),
    FogUnit(2, "PW+GConv(64)+PW", "PW+GC(64)+PW", 512, "28.4", "28.4", _QUARTER, 98),
    FogUnit(3, "Standard", "CONV(3)", 64, "11.2", "31.1"),
    FogUnit(3, "DW+PW", "DW+PW", 72, "0.8", "31.7"),
    FogUnit(3, "DW+PW", "DW+PW", 280, "11.2", "28.5"),
    FogUnit(3, "GConv(4)+PWGConv(32)", "GC(4)+GPW(32)", 128, "11.2", "30.8"),
    FogUnit(3, "GConv(16)+PWGConv(16)", "GC(16)+GPW(16)", 256, "11.3", "29.4"),
    FogUnit(3, "PW+DW+PW", "PW+DW+PW", 400, "11.0", "26.9", _QUARTER),
    FogUnit(3, "PWGConv(4)+DW+PWGConv(4)", "GPW(4)+DW+GPW(4)", 560, "11.3", "25.6", _QUARTER),
    FogUnit(4, "ResNet", "CONV(3)", 64, "11.2", "31.3"),
    FogUnit(4, "ResNet, bottleneck", "PW+CONV(3)+PW", 192, "11.3", "29.9", _QUARTER),
    FogUnit(4, "ResNeXt", "PW+GC(16)+PW", 192, "11.1", "29.8", Fraction(1, 2)),
    FogUnit(4, "Xception", "DW+PW", 280, "11.2", "28.5"),
    FogUnit(4, "ShuffleNet", "GPW(4)+DW+GPW(4)", 560, "11.3", "25.6", _QUARTER),
    FogUnit(4, "GConv(100)+PWGConv(2)", "GC(100)+GPW(2)", 200, "8.6", "27.0"),
    FogUnit(4, "PWGConv(100)+DW+PWGConv(2)", "GPW(100)+DW+GPW(2)", 700, "10.4", "24.9", _QUARTER),
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A cell of [Layout] Table 1 or 2: the label it has, its budget, its layouts."""

    table: int
    label: str
    budget: int
    layouts: tuple[Widths, ...]


def widths(text: str) -> tuple[Widths, ...]:
    """Return layouts from text: widths joined by commas, layouts by spaces.

    >>> widths("8,8,525 8,13,320")
    ((8, 8, 525), (8, 13, 320))
    """
    return tuple(tuple(map(int, layout.split(","))) for layout in text.split())


# [Layout] Tables 1 and 2; both cells of Table 1 are labelled "Three Convs".
LISTED: Final = (
    Listed(
        1,
        "Three Convs/24",
        4288,
        widths("""
        8,8,525 8,13,320 8,26,156 8,41,96 8,52,74 11,23,174 11,37,104 14,22,179 16,16,249 16,20,196
        16,40,90 16,53,64 17,19,206 18,29,128 20,28,131 21,25,148 24,31,112 24,34,100 32,32,99
        34,46,57 35,47,54 36,38,74 36,44,59 36,43,58"""),
    ),
    Listed(
        1,
        "Three Convs/32",
        4288,
        widths("""
        8,14,24,159 8,16,44,78 8,18,40,86 8,20,38,88 8,20,38,88 8,21,32,107 8,23,48,62 8,25,32,102
        8,27,46,61 8,33,40,67 8,38,44,52 9,27,49,55 9,29,40,71 10,23,38,83 10,31,42,63 11,17,36,96
        11,35,43,55 12,21,32,104 12,28,44,64 13,19,46,68 13,28,37,77 14,29,40,67 14,33,43,55
        14,33,44,53 15,22,43,69 16,22,36,86 16,32,39,65 16,34,44,50 17,29,36,75 18,25,44,61
        19,26,37,75 20,34,44,51 23,29,37,67"""),
    ),
    Listed(
        2,
        "Three Convs/32",
        66304,
        widths("""
        10,26,2539 16,101,640 16,164,388 17,19,3470 17,209,300 18,50,1307 18,106,607 28,35,1864
        28,44,1477 28,77,832 28,110,574 28,140,445 28,154,402 34,79,804 34,158,385 36,52,1237
        37,37,1752 47,109,560 50,62,1017 50,97,632 50,194,291 55,59,1066 56,56,1125 58,170,331
        64,64,969 69,157,352 100,116,469 104,113,480 128,128,387 128,160,284 148,178,222
        148,185,208"""),
    ),
    Listed(
        2,
        "Four Convs/32",
        66304,
        widths("""
        10,34,66,965 11,53,69,899 12,132,157,280 12,133,188,211 15,29,88,719 15,29,136,455
        16,159,181,193 18,81,104,542 22,25,42,1539 22,37,87,715 25,113,121,411 28,70,153,350
        28,81,112,490 36,71,172,299 38,58,107,540 38,109,112,445 42,67,124,444 46,79,81,693
        46,111,142,319 47,61,64,928 55,59,118,474 56,81,175,271 64,76,96,562 64,88,189,232
        65,125,128,328 66,83,92,576 68,85,145,331 74,103,148,292 78,145,148,225 88,91,93,533
        98,100,146,285 122,131,138,231"""),
    ),
)
# [Layout] Table 3 and section 4.1: units of 1, 10, 10 and 10 convolutions, their budget; the text
# of section 4.3 counts so many layouts of it.
RESIDUAL: Final = ((1, 10, 10, 10), 51248)
RESIDUAL_LAYOUTS: Final = 12
# [Layout] section 4.1: the paper calls 24 layouts all that qualify; its least width is this.
LEAST_WIDTH: Final = 8
# [Layout] Table 4.
RESIDUAL_ENERGIES: Final = (
    ((1, 11, 42, 59), "0"),
    ((1, 27, 34, 59), "0"),
    ((5, 8, 17, 72), "40.551"),
    ((5, 10, 27, 68), "51.536"),
    ((7, 16, 34, 63), "78.825"),
    ((7, 24, 25, 65), "83.096"),
    ((8, 22, 48, 50), "97.341"),
    ((13, 20, 35, 61), "112.304"),
    ((15, 16, 37, 61), "111.4536"),
    ((15, 32, 38, 53), "135.5464"),
    ((16, 16, 32, 64), "110.0631"),
    ((19, 34, 41, 49), "150.0631"),
    ((20, 28, 42, 52), "147.4244"),
)
# [Layout] Table 5.
LEARNED: Final = (
    (4288, widths("35,36,37,43 33,35,37,47 35,37,38,39 32,36,38,44 30,31,38,55 28,29,32,77")),
    (
        66304,
        widths(
            "135,136,137,211 133,135,137,215 124,125,128,269 137,141,142,187 123,125,128,270"
            " 128,130,140,222"
        ),
    ),
)
# [Layout] section 4.2, of models that the text does not name.
NAMED_ENERGIES: Final = ("173.03", "95.05")
