"""Theorems as code: rules per operation, the network bound, statistics and the certificate."""

from ssmred.certify import (  # noqa: F401  (these modules fill the table of rules)
    rules_affine,
    rules_normalisation,
    rules_pointwise,
    rules_products,
    rules_shape,
    rules_ssm,
)
from ssmred.certify.blocks import BlockGains, Blocks, network_blocks
from ssmred.certify.certificate import Certificate, LayerRecord, layer_records
from ssmred.certify.chain import (
    ChainBound,
    LayerBound,
    LayerError,
    layer_bounds,
    network_bound,
    signal_energies,
)
from ssmred.certify.decisions import (
    ClassChanges,
    DecisionChanges,
    decision_changes,
    has_decisions,
)
from ssmred.certify.drift import InputDrift, input_drift
from ssmred.certify.graph import NetworkGraph, Node, operation_name
from ssmred.certify.guarantees import (
    ASSUMPTIONS,
    DECISION_THEOREMS,
    ENCLOSED_ASSUMPTIONS,
    THEOREMS,
    WARNINGS,
)
from ssmred.certify.inputs import InputSet
from ssmred.certify.observed import ObservedBound, ObservedChain
from ssmred.certify.planning import (
    SamplePlan,
    allowed_violations,
    certifiable_confidence,
    certifiable_coverage,
    sample_plan,
)
from ssmred.certify.quadratic_chain import (
    QuadraticBlock,
    QuadraticChainBound,
    quadratic_chain_bound,
)
from ssmred.certify.rounding import percent_up, rounded_up
from ssmred.certify.rules_table import RULES, check_rules, has_rule, rule
from ssmred.certify.scale import relative_bound
from ssmred.certify.statistics import (
    SequenceTest,
    data_sha256,
    exceedance_upper_bound,
    fixed_sequence_test,
    order_statistic_bound,
    required_samples,
    split_indices,
)
from ssmred.certify.values import ErrorBall, Value
from ssmred.certify.verifier import (
    Verification,
    output_errors,
    output_scale,
    register_model_reader,
    verify,
)

__all__ = [
    "ASSUMPTIONS",
    "DECISION_THEOREMS",
    "ENCLOSED_ASSUMPTIONS",
    "RULES",
    "THEOREMS",
    "WARNINGS",
    "BlockGains",
    "Blocks",
    "Certificate",
    "ChainBound",
    "ClassChanges",
    "DecisionChanges",
    "ErrorBall",
    "InputDrift",
    "InputSet",
    "LayerBound",
    "LayerError",
    "LayerRecord",
    "NetworkGraph",
    "Node",
    "ObservedBound",
    "ObservedChain",
    "QuadraticBlock",
    "QuadraticChainBound",
    "SamplePlan",
    "SequenceTest",
    "Value",
    "Verification",
    "allowed_violations",
    "certifiable_confidence",
    "certifiable_coverage",
    "check_rules",
    "data_sha256",
    "decision_changes",
    "exceedance_upper_bound",
    "fixed_sequence_test",
    "has_decisions",
    "has_rule",
    "input_drift",
    "layer_bounds",
    "layer_records",
    "network_blocks",
    "network_bound",
    "operation_name",
    "order_statistic_bound",
    "output_errors",
    "output_scale",
    "percent_up",
    "quadratic_chain_bound",
    "register_model_reader",
    "relative_bound",
    "required_samples",
    "rounded_up",
    "rule",
    "sample_plan",
    "signal_energies",
    "split_indices",
    "verify",
]
