"""Let each token know the few before it, before any attention.

To answer "who has the cup?" from a text, attention must find a place by what stands *before* it. With plain embeddings
that takes two layers which are of use only together: one that carries each token on to its neighbour, one that looks
for it (Olsson et al. 2022, "induction heads"). Small models find the pair late, or not at all. Here the first half is
given: a causal convolution over the embeddings, channel by channel, that costs a few multiplications a token.

Source: depthwise short convolutions in language models, Fu et al. 2023, "Hungry Hungry Hippos", and Allen-Zhu 2025,
"Canon layers" (there in every layer: here on the embeddings alone, where generation needs nothing but the last ids).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ShortConv(nn.Module):
    """y_t = e_t + Σ_j w_j ⊙ e_{t-j} for j = 1 .. n; what lies before a text, or in another document, is 0.

    The weights begin as -1 or 1 by chance. Each distance then has signs of its own in each channel, by which the layers
    tell the neighbours apart at once; weights near 0 must first grow, those of a mean are alike. And the same signs
    give a neighbour back whole: w_j ⊙ (w_j ⊙ e) = e.

    Source of the signs: Gayler 1998, "Multiplicative binding, representation operators and analogy".
    """

    def __init__(self, n: int, n_embd: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n, n_embd))                # (n, C)

    def forward(self, e: Tensor, T: int, document: Tensor | None = None) -> Tensor:
        """The last T tokens of `e` (B, up to n + T, C), with what came before them -> (B, T, C).

        document (B, T): as in `GPT.forward`; tokens join those of their own document only.
        """
        n = len(self.weight)
        e = F.pad(e, (0, 0, n + T - e.size(1), 0))                        # (B, n + T, C)
        y = e[:, n:]                                                      # (B, T, C)
        for j, w in enumerate(self.weight, 1):
            before = w * e[:, n - j : n - j + T]                          # (B, T, C)
            if document is not None:
                earlier = F.pad(document, (j, 0), value=-1)[:, :T]        # (B, T): of the token j places before
                before = before * (earlier == document)[..., None]
            y = y + before
        return y

    def rows(self, e: Tensor, before: Tensor) -> Tensor:
        """The same for single rows: e (N, C) and what came before each, nearest first (N, n, C) -> (N, C)."""
        for j, w in enumerate(self.weight):
            e = e + w * before[:, j]
        return e
