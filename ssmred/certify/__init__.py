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
from ssmred.certify.certificate import Certificate, LayerRecord, layer_records, rounded_up
from ssmred.certify.chain import (
    ChainBound,
    LayerBound,
    LayerError,
    layer_bounds,
    network_bound,
    signal_energies,
)
from ssmred.certify.graph import NetworkGraph, Node, operation_name
from ssmred.certify.guarantees import ASSUMPTIONS, THEOREMS
from ssmred.certify.inputs import InputSet
from ssmred.certify.quadratic_chain import (
    QuadraticBlock,
    QuadraticChainBound,
    quadratic_chain_bound,
)
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
    "RULES",
    "THEOREMS",
    "BlockGains",
    "Blocks",
    "Certificate",
    "ChainBound",
    "ErrorBall",
    "InputSet",
    "LayerBound",
    "LayerError",
    "LayerRecord",
    "NetworkGraph",
    "Node",
    "QuadraticBlock",
    "QuadraticChainBound",
    "SequenceTest",
    "Value",
    "Verification",
    "check_rules",
    "data_sha256",
    "exceedance_upper_bound",
    "fixed_sequence_test",
    "has_rule",
    "layer_bounds",
    "layer_records",
    "network_blocks",
    "network_bound",
    "operation_name",
    "order_statistic_bound",
    "output_errors",
    "output_scale",
    "quadratic_chain_bound",
    "register_model_reader",
    "relative_bound",
    "required_samples",
    "rounded_up",
    "rule",
    "signal_energies",
    "split_indices",
    "verify",
]
