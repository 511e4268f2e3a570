"""Optimal Hankel-norm approximation.

Theory: ``theory/hankel-norm-approximation.md``, ``theory/aak-con-eigenvalues.md``.
"""

from __future__ import annotations

import copy

import numpy as np

from ssmred.checks import check_choice
from ssmred.errors import UnsupportedOperationError, message
from ssmred.gramians.hankel import gramian_factors
from ssmred.reductors.all_pass import (
    BalancedData,
    balanced_data,
    embedding_bounds,
    hankel_approximant,
)
from ssmred.reductors.con_eigenvalues import ConEigenCore
from ssmred.reductors.moving import Core, MovingPath, MovingReductor
from ssmred.reductors.reductor import Reductor
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, of_kind
from ssmred.systems.stability import check_stable

__all__ = ["HankelReductor"]

METHODS = ("input", "glover", "con-eigenvalues")


class HankelReductor(MovingReductor):
    """Reduce with the least possible error in the Hankel norm.

    Parameters
    ----------
    method : {"input", "glover", "con-eigenvalues"}
        Glover's all-pass embedding takes any system; con-eigenvalues (Adamjan, Arov and Krein) a
        diagonal one with one input and one output, and are accurate for small Hankel singular
        values too. ``"input"`` is ``"con-eigenvalues"`` for these and ``"glover"`` for all others.
        ``Reduction.method`` says which was used.
    form : {"input", "dense", "diagonal"}

    Notes
    -----
    ``||H - H_r||_Hankel = sigma_{r+1}``, which no system of order r undercuts, and with the direct
    term that comes with it ``||H - H_r||_inf <= sigma_{r+1} + ... + sigma_n``, half the bound of
    balanced truncation. The direct term changes. Where an order would split equal Hankel singular
    values, all of them go (``"glover"`` counts this one group once in the bound). Level FLOAT. Cost
    O(n^3) per channel; ``"glover"`` and complex systems in a loop over channels.

    Examples
    --------
    Without states the best that is left is a constant:

    >>> system = DiagonalSystem([0.6], [4.0], [1.0])
    >>> reduction = HankelReductor().reduce(system, order=0)
    >>> reduction.system.D.round(12).tolist(), reduction.claim.value.round(12).tolist()
    ([[3.75]], 6.25)
    >>> reduction.method
    'hankel, con-eigenvalues'
    """

    moves_direct_term = True

    def __init__(self, *, method: str = "input", form: str = "input") -> None:
        super().__init__(form=form)
        self.kind = check_choice(method, METHODS, "method", "HankelReductor")
        self.method = "hankel"
        self.theorem = "hankel-norm-approximation"

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise an error unless the system is stable and the method can take it."""
        super().check_accepts(system)
        if self.kind == "con-eigenvalues" and not _is_sum_of_exponentials(system):
            raise UnsupportedOperationError(
                message(
                    "HankelReductor",
                    "con-eigenvalues need a diagonal system with one input and one output",
                    got=repr(system),
                    cure='Pass method="glover".',
                )
            )
        check_stable(system, "HankelReductor")

    def path(self, system: LinearSystem) -> MovingPath:
        """Return what every order costs.

        Parameters
        ----------
        system : DiagonalSystem or DenseSystem

        Returns
        -------
        MovingPath
        """
        Reductor.check_accepts(self, system)
        chosen = copy.copy(self)
        if self.kind == "input":
            chosen.kind = "con-eigenvalues" if _is_sum_of_exponentials(system) else "glover"
        chosen.method = f"hankel, {chosen.kind}"
        if chosen.kind == "con-eigenvalues":
            chosen.theorem = "aak-con-eigenvalues"
        return super(HankelReductor, chosen).path(system)

    def core(self, system: LinearSystem) -> Core:
        """Return the Hankel singular values of a flat batch and what belongs to them."""
        if self.kind == "con-eigenvalues":
            system = of_kind(system, DiagonalSystem, "HankelReductor")
            return ConEigenCore(system, dense=self.form == "dense")
        return _GloverCore(system)


def _is_sum_of_exponentials(system: LinearSystem) -> bool:
    single = system.inputs == 1 and system.outputs == 1
    return isinstance(system, DiagonalSystem) and single


class _GloverCore:
    norm = "hinf"
    theorem = "hankel-norm-approximation"

    def __init__(self, system: LinearSystem) -> None:
        self.system = system.realified() if system.is_real else system.to_dense()
        factors = gramian_factors(system, real=True)
        self.data: list[BalancedData] = []
        self.centres = np.zeros(len(self.system.A))
        self.hankel = np.zeros(self.system.B.shape[:-1])
        for h, (Lp, Lq) in enumerate(zip(*factors, strict=True)):
            one = self.system
            data = balanced_data(Lp, Lq, one.A[h], one.B[h], one.C[h], one.D[h])
            self.hankel[h, : data.sigma.size] = data.sigma
            if one.is_discrete:
                self.centres[h], data = _continuous(data)
            self.data.append(data)
        self.errors = embedding_bounds(self.hankel)
        self.norms = self.hankel[:, 0]

    def reduced(self, channels: np.ndarray, order: int) -> tuple[DenseSystem, None, None]:
        """Return optimal approximations, one channel after the other."""
        pieces = []
        for h in channels:
            data = self.data[h]
            if order < data.sigma.size:
                data = BalancedData(data.sigma[:0], *hankel_approximant(data, order))
            if self.system.is_discrete:
                data = _discrete(data, self.centres[h])
            pieces.append(data)
        width = max(piece.A.shape[0] for piece in pieces)
        dtype = np.result_type(*(piece.A for piece in pieces), *(piece.D for piece in pieces))
        A = np.zeros((len(pieces), width, width), dtype)
        if not self.system.is_discrete:
            A[:, range(width), range(width)] = -1.0
        B = np.zeros((len(pieces), width, self.system.inputs), dtype)
        C = np.zeros((len(pieces), self.system.outputs, width), dtype)
        for i, piece in enumerate(pieces):
            r = piece.A.shape[0]
            A[i, :r, :r], B[i, :r], C[i, :, :r] = piece.A, piece.B, piece.C
        D = np.stack([piece.D for piece in pieces])
        return self.system.replace(A=A, B=B, C=C, D=D), None, None


def _continuous(data: BalancedData) -> tuple[float, BalancedData]:
    """Return the centre of ``z = centre (1 + s) / (1 - s)`` and the system in s, as balanced."""
    eye = np.eye(data.A.shape[0])
    poles = np.linalg.eigvals(data.A)
    near, far = (np.abs(poles - point).min(initial=2.0) for point in (1.0, -1.0))
    centre = 1.0 if far >= near else -1.0
    inverse = np.linalg.inv(data.A + centre * eye)
    A = inverse @ (data.A - centre * eye)
    B, C = inverse @ data.B, data.C @ inverse
    return centre, BalancedData(
        data.sigma, A, np.sqrt(2) * B, np.sqrt(2) * centre * C, data.D - data.C @ B
    )


def _discrete(data: BalancedData, centre: float) -> BalancedData:
    """Return a system in s as one in z."""
    eye = np.eye(data.A.shape[0])
    inverse = np.linalg.inv(eye - data.A)
    A = centre * (eye + data.A) @ inverse
    B, C = inverse @ data.B, data.C @ inverse
    return BalancedData(data.sigma, A, np.sqrt(2) * centre * B, np.sqrt(2) * C, data.D + data.C @ B)
