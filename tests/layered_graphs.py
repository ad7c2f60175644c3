"""The layered graph of a block as a networkx graph, and isomorphism by a map that keeps layers.

The independent witness of `ifspace.canonical`: channel by channel, from the definitions of the
kinds in `witness`, with no quotient and no canonical form.
"""

import networkx as nx
from witness import channels_read

from ifspace.block import SizedBlock


def layered_graph(sized: SizedBlock, fixed_ends: bool = False) -> nx.DiGraph:
    """A vertex for each channel after each layer, labelled by the kernel sizes up to it.

    A shuffle renames channels. With fixed ends, channel i that leaves is channel i that enters.
    """
    graph = nx.DiGraph()
    now = [(0, channel) for channel in range(sized.channels)]
    graph.add_nodes_from(now, label=(0,))
    kernels: tuple[int, ...] = ()
    for layer in sized.layers:
        rows = channels_read(layer)
        if layer.layer.kind == "SH":
            now = [now[read] for (read,) in rows]
            continue
        kernels += (layer.kernel,)
        after = [(len(kernels), channel) for channel in range(layer.c_out)]
        graph.add_nodes_from(after, label=(len(kernels), *kernels))
        for vertex, row in zip(after, rows, strict=True):
            graph.add_edges_from((now[read], vertex) for read in row)
        now = after
    if fixed_ends and not kernels:
        graph.add_edges_from(((0, channel), vertex) for channel, vertex in enumerate(now))
    elif fixed_ends:
        ends = {vertex: (0, channel) for channel, vertex in enumerate(now)}
        graph = nx.relabel_nodes(graph, ends)
        graph.add_nodes_from(ends.values(), label=(0, *kernels))
    return graph


def isomorphic(one: nx.DiGraph, other: nx.DiGraph) -> bool:
    """Whether a map that keeps layers makes the graphs equal."""
    # The cheap tests first: the search for a map can be long where there is none.
    if degrees(one) != degrees(other):
        return False
    hashes = {
        nx.weisfeiler_lehman_graph_hash(graph.to_undirected(), node_attr="label")
        for graph in (one, other)
    }
    if len(hashes) > 1:
        return False
    return bool(nx.vf2pp_is_isomorphic(one, other, node_label="label"))


def degrees(graph: nx.DiGraph) -> list[tuple[tuple[int, ...], int]]:
    """The multiset of labels and degrees, sorted."""
    return sorted((label, graph.degree[vertex]) for vertex, label in graph.nodes("label"))
