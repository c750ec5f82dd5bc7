"""Graphs that wire a network: connected, drawn again from their seed, and described as networkx does."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseq.errors import InputError
from edgeseq.models.wiring import draw_wiring, wiring_facts


@st.composite
def graphs(draw):
    nodes = draw(st.integers(5, 30))
    if draw(st.booleans()):
        return {"graph": "barabasi_albert", "nodes": nodes, "attach": draw(st.integers(1, nodes - 1))}
    neighbours = 2 * draw(st.integers(2, (nodes - 1) // 2))
    return {"graph": "watts_strogatz", "nodes": nodes, "neighbours": neighbours, "rewire": draw(st.floats(0, 1))}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(drawn=graphs(), seed=st.integers(0, 99))
def test_a_wiring_is_symmetric_connected_and_of_the_graphs_own_number_of_edges(drawn, seed):
    wiring = draw_wiring(**drawn, seed=seed)
    nodes = drawn["nodes"]
    assert wiring.shape == (nodes, nodes)
    assert wiring.dtype == bool
    assert wiring.diagonal().all()
    assert (wiring == wiring.T).all()
    assert np.linalg.matrix_power(wiring.astype(float), nodes).all()  # each node reaches every other
    edges = (wiring.sum() - nodes) // 2
    if drawn["graph"] == "barabasi_albert":
        assert edges == drawn["attach"] * (nodes - drawn["attach"])
    else:
        assert edges == nodes * drawn["neighbours"] // 2
    assert (draw_wiring(**drawn, seed=seed) == wiring).all()


def test_another_seed_draws_another_graph():
    assert (draw_wiring("barabasi_albert", 20, attach=2) != draw_wiring("barabasi_albert", 20, attach=2, seed=1)).any()


def test_a_ring_is_numbered_so_that_neighbours_are_close():
    wiring = draw_wiring("watts_strogatz", 20, neighbours=2, rewire=0)
    rows, columns = np.nonzero(wiring)
    assert abs(rows - columns).max() == 2  # 19 in the order around the ring


def test_facts_of_a_ring_are_those_on_paper():
    facts = wiring_facts(draw_wiring("watts_strogatz", 6, neighbours=2, rewire=0))
    assert facts == pytest.approx(
        {
            "nodes": 6, "edges": 6, "density": 2 / 5, "mean_shortest_path": (1 + 1 + 2 + 2 + 3) / 5, "diameter": 3,
            "clustering": 0, "spectral_radius": 2, "degree_mean": 2, "degree_variance": 0,
            "closeness_mean": 5 / 9, "closeness_variance": 0,
            # between the pairs of other nodes: half of one at distance 3 on either side, and the one at distance 2
            "node_betweenness_mean": (0.5 + 0.5 + 1) / 10, "node_betweenness_variance": 0,
            "edge_betweenness_mean": 27 / 6 / 15, "edge_betweenness_variance": 0,
        },
        abs=1e-12,
    )  # fmt: skip


def test_facts_of_a_graph_that_is_known_are_networkxs():
    graph = networkx.karate_club_graph()
    wiring = networkx.to_numpy_array(graph, weight=None) != 0
    np.fill_diagonal(wiring, True)
    facts = wiring_facts(wiring)
    assert (facts["nodes"], facts["edges"], facts["diameter"]) == (34, 78, 5)
    assert facts["mean_shortest_path"] == pytest.approx(networkx.average_shortest_path_length(graph))
    assert facts["clustering"] == pytest.approx(networkx.average_clustering(graph))
    for name, values in {
        "degree": dict(graph.degree),
        "closeness": networkx.closeness_centrality(graph),
        "node_betweenness": networkx.betweenness_centrality(graph),
        "edge_betweenness": networkx.edge_betweenness_centrality(graph),
    }.items():
        spread = list(values.values())
        assert facts[f"{name}_mean"] == pytest.approx(np.mean(spread))
        assert facts[f"{name}_variance"] == pytest.approx(np.var(spread))
    assert facts["spectral_radius"] == pytest.approx(6.7257, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"graph": "watts_strogats"}, "unknown graph 'watts_strogats'. Did you mean 'watts_strogatz'"),
        ({"nodes": 2}, "nodes 2: at least 3 are needed for watts_strogatz"),
        ({"graph": "barabasi_albert", "nodes": 1}, "nodes 1: at least 2"),
        ({"neighbours": 3}, "neighbours 3: .* an even number from 2 to 8"),
        ({"neighbours": 0}, "neighbours 0"),
        ({"neighbours": 10}, "neighbours 10: .*nodes 10"),
        ({"rewire": 1.5}, "rewire 1.5: a probability"),
        ({"rewire": -0.1}, "rewire -0.1"),
        ({"graph": "barabasi_albert", "attach": 0}, "attach 0: from 1 to 9"),
        ({"graph": "barabasi_albert", "attach": 10}, "attach 10: from 1 to 9"),
    ],
)
def test_what_no_graph_can_have_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_wiring(**{"graph": "watts_strogatz", "nodes": 10, **arguments})


def test_where_no_connected_graph_is_found_more_neighbours_are_asked_for(monkeypatch):
    draw = networkx.connected_watts_strogatz_graph
    monkeypatch.setattr(networkx, "connected_watts_strogatz_graph", lambda *sizes, tries, seed: draw(*sizes, 1, seed))
    with pytest.raises(
        InputError, match=r"watts_strogatz of 2000 nodes with neighbours 2 and rewire 1.*more neighbours"
    ):
        draw_wiring("watts_strogatz", 2000, neighbours=2, rewire=1.0)
