"""Keep the one table of operation rules, which a user can extend.

A rule maps the values of a node's inputs to the value of its output: range and error together.
Every rule of the table is a theorem of ``theory/error-rules.md``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssmred.certify.graph import NetworkGraph, Node, operation_name
from ssmred.certify.values import Value
from ssmred.errors import ShapeError, UnsupportedOperationError, message

__all__ = ["RULES", "Rule", "apply_rule", "check_rules", "has_rule", "rule"]

Rule = Callable[..., Value]

RULES: dict[str, Rule] = {}
"""Rules by operation name; filled by :func:`rule`."""


def rule(*operations: str | type) -> Callable[[Rule], Rule]:
    """Register a rule for operations, given by name or by the user's own module class.

    Parameters
    ----------
    *operations : str or type
        Operation names of ``ssmred.certify.graph`` or classes; a class is a leaf for tracing and
        reaches its rule as a node whose params hold its state as arrays.

    Returns
    -------
    callable
        A decorator for ``rule(node, *values) -> Value``. The rule has to be a theorem: for every
        pair of input signals within ``values`` the output signals lie within the result.

    Examples
    --------
    >>> class Half:  # a module that halves its input
    ...     pass
    >>> @rule(Half)
    ... def half(node, x):
    ...     return x.pointwise(0.5 * x.lo, 0.5 * x.hi, slope=0.5, gain=0.5)
    >>> has_rule(Half), has_rule("no such operation")
    (True, False)
    >>> del RULES[operation_name(Half)]
    """

    def register(function: Rule) -> Rule:
        for operation in operations:
            RULES[operation_name(operation)] = function
        return function

    return register


def has_rule(operation: str | type) -> bool:
    """Tell whether an operation or a module class has a rule."""
    return operation_name(operation) in RULES


def check_rules(graph: NetworkGraph, where: str = "network_bound") -> None:
    """Raise UnsupportedOperationError, naming every operation of ``graph`` without a rule."""
    missing = [node for node in graph if node.op != "input" and node.op not in RULES]
    if missing:
        named = ", ".join(f"{node.op!r} (node {node.name!r})" for node in missing)
        raise UnsupportedOperationError(
            message(
                where,
                f"no rule for {named}",
                expected="operations in ssmred.certify.RULES",
                cure="Register a rule with @ssmred.certify.rule(YourModuleClass), or ask for "
                'guarantee="statistical", which needs no rules.',
            )
        )


def apply_rule(node: Node, *values: Value) -> Value:
    """Return the value of a node's output by its rule, checked against the node's axes.

    Raises
    ------
    UnsupportedOperationError
        If the operation has no rule.
    ShapeError
        If the rule's result does not have the node's axes.
    """
    if node.op not in RULES:
        check_rules(NetworkGraph((Node("x", "input"), *_detached(node)), node.name))
    # infinite bounds are ordinary here, and a Value refuses the nan they could leave behind
    with np.errstate(all="ignore"):
        result = RULES[node.op](node, *values)
    if result.axes != node.axes:
        raise ShapeError(
            message(
                f"rule for {node.op!r} (node {node.name!r})",
                "the result does not have the axes of the node",
                expected=str(node.axes),
                got=str(result.axes),
            )
        )
    return result


def _detached(node: Node) -> tuple[Node]:
    return (Node(node.name, node.op, (), {}, node.axes),)
