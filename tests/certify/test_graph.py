"""Network graphs: order, names, axes and exact copies of the weights."""

import numpy as np
import pytest

from ssmred.certify import NetworkGraph, Node, operation_name
from ssmred.errors import DataError, ShapeError

U = Node("u", "input", (), {"shape": (1, 2)}, ("time", "feature"))


class Layer:
    pass


def test_nodes_copy_their_arrays_and_promote_exactly():
    weight = np.array([[0.1, 1e-40]], dtype=np.float32)
    node = Node("y", "linear", ["u"], {"weight": weight, "count": np.array([3])}, ["feature"])
    weight[:] = 7.0
    assert node.params["weight"].dtype == np.float64
    assert node.params["weight"][0, 0] == float(np.float32(0.1))
    assert not node.params["weight"].flags.writeable
    assert node.params["count"].dtype.kind == "i"
    assert node.with_params(bias=None).params["weight"] is node.params["weight"]
    assert node.inputs == ("u",)
    half = Node("y", "affine", (), {"scale": np.array([0.1], dtype=np.float16)})
    assert half.params["scale"][0] == float(np.float16(0.1))


def test_classes_become_qualified_names():
    assert Node("y", Layer).op == operation_name(Layer) == f"{__name__}.Layer"


def test_bad_nodes_are_refused():
    with pytest.raises(DataError, match="weight"):
        Node("y", "linear", (), {"weight": np.array([[np.nan]])})
    with pytest.raises(DataError, match="scale"):
        Node("y", "affine", (), {"scale": float("inf")})
    for axes in (("batch", "time"), ("time", "time")):
        with pytest.raises(ShapeError, match="axes"):
            Node("y", "identity", (), {}, axes)


def test_graphs_check_order_names_and_output():
    y = Node("y", "identity", ("u",), {}, ("time", "feature"))
    graph = NetworkGraph([U, y], "y")
    assert graph.input is U
    assert graph["y"] is y
    assert graph.ssm_nodes == ()
    with pytest.raises(KeyError):
        graph["z"]
    for nodes, output in (([y, U], "y"), ([U, y, y], "y"), ([U, y], "z"), ([U, U], "u"), ([], "y")):
        with pytest.raises(ShapeError):
            NetworkGraph(nodes, output)


def test_systems_are_replaced_by_name():
    s = Node("s", "ssm", ("u",), {"system": "old"}, ("feature", "time"))
    graph = NetworkGraph([U, s], "s")
    assert graph.with_systems({"s": "new"})["s"].params["system"] == "new"
    assert graph["s"].params["system"] == "old"
    with pytest.raises(ShapeError, match="not state-space nodes"):
        graph.with_systems({"u": "new"})
