"""Random graphs that wire a network, and what is to be said of them.

    watts_strogatz    N nodes on a ring, each joined to its k nearest, each edge rewired with probability p; connected
    barabasi_albert   nodes come one by one, each joined to m of those there, the more likely the more edges these have

Watts, Strogatz, "Collective dynamics of 'small-world' networks", Nature 1998. Barabási, Albert, "Emergence of scaling
in random networks", Science 1999. Both are drawn by networkx.
"""

from __future__ import annotations

from typing import Any

import networkx
import numpy as np
from numpy.typing import NDArray

from edgeseq.errors import InputError, unknown

Adjacency = NDArray[np.bool_]  # (N, N), symmetric

GRAPHS = ("watts_strogatz", "barabasi_albert")


def draw_wiring(
    graph: str, nodes: int, *, neighbours: int = 2, rewire: float = 0.0, attach: int = 1, seed: int = 0
) -> Adjacency:
    """Who reads whom ``(N, N)``: the two nodes of an edge each other, and every node itself.

    The nodes are numbered in reverse Cuthill-McKee order, which puts neighbours close to each other.

    Raises:
        InputError: an unknown graph, a number that it cannot have, or no connected graph was found in 100 draws.
    """
    _check(graph, nodes, neighbours, rewire, attach)
    try:
        if graph == "watts_strogatz":
            drawn = networkx.connected_watts_strogatz_graph(nodes, neighbours, rewire, tries=100, seed=seed)
        else:
            drawn = networkx.barabasi_albert_graph(nodes, attach, seed=seed)
    except networkx.NetworkXError as error:
        raise InputError(
            f"{graph} of {nodes} nodes with neighbours {neighbours} and rewire {rewire:g}: {error}. Use more "
            "neighbours, or another wiring_seed"
        ) from None
    order = list(networkx.utils.reverse_cuthill_mckee_ordering(drawn))
    adjacency: Adjacency = networkx.to_numpy_array(drawn, nodelist=order, weight=None) != 0
    np.fill_diagonal(adjacency, True)
    return adjacency


def _check(graph: str, nodes: int, neighbours: int, rewire: float, attach: int) -> None:
    if graph not in GRAPHS:
        raise unknown("graph", graph, GRAPHS)
    fewest = 2 if graph == "barabasi_albert" else 3
    if nodes < fewest:
        raise InputError(f"nodes {nodes}: at least {fewest} are needed for {graph}")
    if graph == "barabasi_albert":
        if not 1 <= attach < nodes:
            raise InputError(f"attach {attach}: from 1 to {nodes - 1} with nodes {nodes}")
        return
    if not 2 <= neighbours < nodes or neighbours % 2:
        raise InputError(
            f"neighbours {neighbours}: half of them are on each side, so with nodes {nodes} an even number from 2 to "
            f"{(nodes - 1) // 2 * 2} is needed"
        )
    if not 0 <= rewire <= 1:
        raise InputError(f"rewire {rewire:g}: a probability, from 0 to 1, is needed")


def wiring_facts(adjacency: Adjacency) -> dict[str, float]:
    """Properties of a connected graph as networkx defines them, without the edges from nodes to themselves.

    ``density``: share of the pairs that have an edge. ``mean_shortest_path`` and ``diameter`` in edges.
    ``spectral_radius``: the largest eigenvalue of the adjacency matrix. Variances are those of the population.
    """
    joined = adjacency.copy()
    np.fill_diagonal(joined, False)
    graph = networkx.from_numpy_array(joined.astype(np.uint8))
    return {
        "nodes": graph.number_of_nodes(),
        "edges": graph.number_of_edges(),
        "density": networkx.density(graph),
        "mean_shortest_path": networkx.average_shortest_path_length(graph),
        "diameter": networkx.diameter(graph),
        "clustering": networkx.average_clustering(graph),
        "spectral_radius": float(np.linalg.eigvalsh(joined.astype(np.float64))[-1]),
        **_spread("degree", dict(graph.degree)),
        **_spread("closeness", networkx.closeness_centrality(graph)),
        **_spread("node_betweenness", networkx.betweenness_centrality(graph)),
        **_spread("edge_betweenness", networkx.edge_betweenness_centrality(graph)),
    }


def _spread(name: str, measured: dict[Any, float]) -> dict[str, float]:
    values = np.array(list(measured.values()), np.float64)
    return {f"{name}_mean": float(values.mean()), f"{name}_variance": float(values.var())}
