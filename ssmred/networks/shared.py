"""One diagonal state that all inputs drive and all outputs read, as in S5 and LRU layers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import nn
from torch.nn import functional

from ssmred.errors import OrderError, ShapeError, message
from ssmred.kernels.shared_step import fill_shared_step
from ssmred.networks.filters import LinearFilter
from ssmred.networks.ragged import as_complex, check_tensors, power_tables, to_pairs
from ssmred.networks.scanning import can_scan, drive_of, read_of, scan
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["SharedSSM"]


class SharedSSM(LinearFilter):
    """Filter m inputs into p outputs through one diagonal state.

    ``x_k = l x_{k-1} + B u_k``, ``y_k = Re(C x_k) + D u_k`` (post-update), or
    ``y_k = Re(C x_{k-1}) + D u_k`` where `delayed`.

    Parameters
    ----------
    poles : (n,) complex
    B : (n, m) complex
    C : (p, n) complex
        Holds the factor 2 of a half spectrum.
    D : (p, m) or (m,) float, optional
        ``(m,)`` is a diagonal, which reaches the first m outputs, for ``p >= m``. Zeros by default.
    delayed : bool
        Whether the output sees the state before the update.

    Attributes
    ----------
    poles, B, C : nn.Parameter, (n, 2), (n, m, 2), (p, n, 2) float64
        Real and imaginary parts.
    D : nn.Parameter, (p, m) or (m,) float64

    Raises
    ------
    ShapeError
        If the arrays do not fit each other.

    Notes
    -----
    See `LinearFilter` on dtypes and on what is kept. Whole sequences go through the states, mode by
    mode, in float64 whatever the signal's dtype: outputs are sums over all modes, which may cancel.
    A state dict with another number of modes loads, and one whose D is diagonal or is not.

    Examples
    --------
    >>> layer = SharedSSM([0.5], [[1.0, 2.0]], [[4.0]], [[0.0, 1.0]])
    >>> layer.kernel(3).tolist()
    [[[4.0, 2.0, 1.0], [9.0, 4.0, 2.0]]]
    >>> layer.states
    2
    """

    TENSORS: ClassVar[tuple[str, ...]] = ("poles", "B", "C", "D")

    def __init__(self, poles: Any, B: Any, C: Any, D: Any = None, *, delayed: bool = False) -> None:
        super().__init__()
        arrays = [np.asarray(a, dtype=np.complex128) for a in (poles, B, C)]
        n = arrays[0].size
        fits = [array.ndim for array in arrays] == [1, 2, 2]
        fits = fits and arrays[1].shape[0] == n and arrays[2].shape[1] == n
        m, p = (arrays[1].shape[1], arrays[2].shape[0]) if fits else (0, 0)
        direct = np.zeros((p, m)) if D is None else np.array(_plain(D), dtype=np.float64)
        if not fits or direct.shape not in ((p, m), (m,) if p >= m else (p, m)):
            raise ShapeError(
                message(
                    "SharedSSM",
                    "the arrays do not fit each other",
                    expected="poles (n,), B (n, m), C (p, n), D (p, m), or (m,) where p >= m",
                    got=f"{[a.shape for a in arrays]} and {direct.shape}",
                )
            )
        self.poles, self.B, self.C = (nn.Parameter(to_pairs(array)) for array in arrays)
        self.D = nn.Parameter(torch.from_numpy(direct))
        self.delayed = bool(delayed)

    # Sizes ---------------------------------------------------------------------------------------

    @property
    def inputs(self) -> int:
        """Number of input features, m."""
        return self.B.shape[1]

    @property
    def outputs(self) -> int:
        """Number of output features, p."""
        return self.C.shape[0]

    @property
    def orders(self) -> np.ndarray:
        """Number of modes, (1,) int64: one state for all channels."""
        return np.array([self.poles.shape[0]])

    @property
    def states(self) -> int:
        """Real state dimension: two per mode."""
        return 2 * self.poles.shape[0]

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        late = ", delayed=True" if self.delayed else ""
        return f"inputs={self.inputs}, outputs={self.outputs}, states={self.states}{late}"

    # Conversions ---------------------------------------------------------------------------------

    @classmethod
    def from_system(
        cls, system: LinearSystem, *, orders: Any = None, kept: Any = None
    ) -> SharedSSM:
        """Make a layer of one real-output system.

        Parameters
        ----------
        system : DiagonalSystem
            Batch shape (1,) or (), real output, in either recurrence, which is kept.
        orders : int or (1,) int, optional
            Keep the first so many modes.
        kept : (n,) or (1, n) bool, optional
            The modes to keep. With neither, everything but padding (pole, B and C all 0) is kept.

        Raises
        ------
        ShapeError
            If the system is not such a layer, or `orders` or `kept` do not fit it.
        """
        if (
            not isinstance(system, DiagonalSystem)
            or system.batch_shape not in ((), (1,))
            or not (system.real_output and system.is_discrete)
        ):
            raise ShapeError(
                message(
                    "SharedSSM.from_system",
                    "the system is not a layer with a shared state",
                    expected="a discrete DiagonalSystem, real_output=True, batch shape (1,)",
                    got=f"{system!r}",
                )
            )
        n, p, m = system.order, system.outputs, system.inputs
        poles, B, C = system.poles.reshape(n), system.B.reshape(n, m), system.C.reshape(p, n)
        mask = _chosen(n, orders, kept)
        if mask is None:
            mask = (poles != 0) | (B != 0).any(axis=1) | (C != 0).any(axis=0)
        D = system.D.reshape(p, m)
        if p >= m and not D[~np.eye(p, m, dtype=bool)].any():
            D = np.diagonal(D)
        return cls(poles[mask], B[mask], C[:, mask], D, delayed=not system.is_post_update)

    def to_system(self) -> DiagonalSystem:
        """Return the layer's system.

        Returns
        -------
        DiagonalSystem
            Poles (1, n), B (1, n, m), C (1, p, n), D (1, p, m), real output; recurrence "standard"
            where the layer is delayed.
        """
        poles, B, C = (as_complex(pairs)[None] for pairs in (self.poles, self.B, self.C))
        D = self._direct().detach().cpu().numpy()
        return DiagonalSystem(
            poles,
            B,
            C,
            D.copy()[None],
            recurrence="standard" if self.delayed else "post-update",
            real_output=True,
        )

    # Whole sequences -----------------------------------------------------------------------------

    def _powers(self, T: int) -> torch.Tensor:
        """Return ``l^0 ... l^(T - 1)``, (n, T) complex128."""
        block = 1 << max(0, (T - 1).bit_length() + 1) // 2  # about sqrt(T)
        rows = -(-T // block)
        low, start = power_tables(self.poles, block, rows)
        return (start[:, :, None] * low[:, None, :]).reshape(len(low), rows * block)[:, :T]

    def _direct(self) -> torch.Tensor:
        """Return D as a matrix, (p, m)."""
        if self.D.ndim == 2:
            return self.D
        return functional.pad(torch.diag(self.D), (0, 0, 0, self.outputs - self.inputs))

    def kernel(self, T: int) -> torch.Tensor:
        """Return the first T impulse-response samples, (p, m, T) float64; D is part of ``h_0``."""
        B, C = torch.view_as_complex(self.B), torch.view_as_complex(self.C)
        D = self._direct()
        late = int(self.delayed)
        weighted = B[:, :, None] * self._powers(max(int(T) - late, 0))[:, None, :]  # (n, m, T)
        response = (C @ weighted.flatten(1)).real.reshape(self.outputs, self.inputs, -1)
        first = D[..., None] if late else D[..., None] + response[..., :1]
        return torch.cat([first, response if late else response[..., 1:]], dim=-1)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Filter sequences.

        Parameters
        ----------
        u : torch.Tensor, (batch, m, T) or (m, T)

        Returns
        -------
        torch.Tensor, (batch, p, T) or (p, T), dtype of `u`

        Notes
        -----
        ``O(n (m + p) T)`` per sequence, the recurrence itself in a compiled loop, on CPU, gradients
        too; elsewhere the state of every mode is a convolution by FFT.
        """
        self._check_signal(u)
        signal = u.to(torch.float64)
        if self.D.ndim == 1:
            silent = (0, 0, 0, self.outputs - self.inputs)
            direct = functional.pad(self.D[:, None] * signal, silent)
        else:
            direct = self.D @ signal
        if not len(self.poles):  # nothing to transform
            return direct.to(u.dtype)
        drive = drive_of(self.B[..., 0], self.B[..., 1], signal)
        y = read_of(self.C[..., 0], self.C[..., 1], self._states(drive))
        if self.delayed:
            y = functional.pad(y[..., :-1], (1, 0))
        return (y + direct).to(u.dtype)

    def _states(self, drive: torch.Tensor) -> torch.Tensor:
        """Return the states (..., 2, n, T) that B u drives, which may be overwritten."""
        if can_scan(self.poles, drive):
            return scan(self.poles, drive)
        length = drive.shape[-1]
        size = next_fast_len(max(2 * length - 1, 1))
        spectrum = self._remembered((length,), lambda: torch.fft.fft(self._powers(length), n=size))
        x = torch.fft.fft(torch.complex(*drive.unbind(-3)), n=size) * spectrum
        x = torch.fft.ifft(x, n=size)[..., :length]
        return torch.stack([x.real, x.imag], dim=-3)

    # Streaming -----------------------------------------------------------------------------------

    def initial_state(self, batch: int = 1) -> torch.Tensor:
        """Return the zero state of `batch` streams, (batch, n, 2) float64."""
        return self.poles.new_zeros(batch, *self.poles.shape)

    def step(
        self, u: torch.Tensor, state: torch.Tensor, *, in_place: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advance by one time step.

        Parameters
        ----------
        u : torch.Tensor, (batch, m)
        state : torch.Tensor, (batch, n, 2) float64
            From `initial_state` or the last step.
        in_place : bool
            Write the next state over `state`.

        Returns
        -------
        y : torch.Tensor, (batch, p), dtype of `u`
        state : torch.Tensor, (batch, n, 2) float64

        Notes
        -----
        ``O(n (m + p))``; a compiled loop on CPU, torch operations elsewhere and where gradients
        are wanted.
        """
        fits = u.ndim == 2 and state.ndim == 3 and u.shape[0] == state.shape[0]
        fits = fits and u.shape[1] == self.inputs and state.shape[1:] == self.poles.shape
        if not (fits and state.dtype == torch.float64):
            raise ShapeError(
                message(
                    "SharedSSM.step",
                    "input and state do not fit the layer",
                    expected=f"u (batch, {self.inputs}) and float64 state "
                    f"(batch, {self.poles.shape[0]}, 2)",
                    got=f"{tuple(u.shape)} and {state.dtype} {tuple(state.shape)}",
                )
            )
        stored = tuple(self._parameters.values())
        learning = torch.is_grad_enabled() and any(t.requires_grad for t in (u, state, *stored))
        plain = u.dtype in (torch.float32, torch.float64) and u.device.type == "cpu"
        if plain and not learning and self.D.device.type == "cpu":
            poles, B, C, D = (tensor.detach().numpy() for tensor in stored)
            if D.ndim == 1:
                D = np.pad(D, (0, self.outputs - self.inputs))[:, None]
            before = state.detach().numpy()
            after = before if in_place else np.empty(before.shape)
            y = np.empty((len(u), self.outputs), u.detach().numpy().dtype)
            fill_shared_step(poles, B, C, D, self.delayed, u.detach().numpy(), before, after, y)
            return torch.from_numpy(y), state if in_place else torch.from_numpy(after)
        signal = u.to(torch.float64)
        old = torch.view_as_complex(state)
        drive = torch.complex(signal @ self.B[..., 0].T, signal @ self.B[..., 1].T)
        x = old * torch.view_as_complex(self.poles) + drive
        y = ((old if self.delayed else x) @ torch.view_as_complex(self.C).T).real
        y = y + signal @ self._direct().T
        after = torch.view_as_real(x)
        return y.to(u.dtype), state.copy_(after) if in_place else after

    # Module machinery ----------------------------------------------------------------------------

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        self._take_sizes(state_dict, prefix, self._check_stored)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_stored(self, stored: dict[str, torch.Tensor], prefix: str) -> None:
        n = stored["poles"].shape[0] if stored["poles"].ndim else 0
        direct = (self.outputs, self.inputs)
        if self.inputs <= self.outputs and stored["D"].ndim == 1:  # diagonal
            direct = (self.inputs,)
        shapes = {
            "poles": (n, 2),
            "B": (n, self.inputs, 2),
            "C": (self.outputs, n, 2),
            "D": direct,
        }
        check_tensors("SharedSSM", stored, shapes, prefix)

    def _settings(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "diagonal": self.D.ndim == 1,
            "delayed": self.delayed,
        }

    @classmethod
    def _blank(cls, *, inputs: int, outputs: int, diagonal: bool, delayed: bool) -> SharedSSM:
        D = np.zeros(inputs) if diagonal else None
        empty = np.zeros(0), np.zeros((0, inputs)), np.zeros((outputs, 0))
        return cls(*empty, D, delayed=delayed)


def _chosen(n: int, orders: Any, kept: Any) -> np.ndarray | None:
    """Return which of n modes are asked for, None where nothing is said."""
    where = "SharedSSM.from_system"
    if orders is None and kept is None:
        return None
    if orders is not None and kept is not None:
        raise ShapeError(message(where, "orders and kept are both given", cure="Pass one."))
    if kept is not None:
        mask = np.asarray(kept)
        if mask.dtype == bool and mask.shape in ((n,), (1, n)):
            return mask.reshape(n)
    else:
        count = np.asarray(orders)
        if count.dtype.kind in "iu" and count.size == 1 and 0 <= int(count.reshape(())) <= n:
            return np.arange(n) < int(count.reshape(()))
    raise OrderError(
        message(
            where,
            "orders or kept do not fit the system",
            expected=f"one whole number up to {n}, or ({n},) bool",
            got=repr(kept if orders is None else orders),
        )
    )


def _plain(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
