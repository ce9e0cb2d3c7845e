"""How strongly to augment: a probability p that follows the overfitting of D (Karras et al. 2020, ADA).

The measure is the mean sign of D's logits on real training images, r = E[sign(D(real))]: near 0 while D can't tell, 1 when it
knows every image. Every four D steps p moves by a fixed amount, up where r is above the target and down where it is below.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlgan.distributed import World
from tlgan.recipe import AugmentSpec

INTERVAL = 4  # D steps
TARGET, SPEED_KIMG = 0.6, 500.0


class Strength:
    """`p` in [0, max_p], the same on all ranks. `p` and the signs since it last moved are its state."""

    def __init__(self, spec: AugmentSpec) -> None:
        self.target = TARGET if spec.target is None else spec.target
        self.speed_nimg = 1000 * (SPEED_KIMG if spec.speed_kimg is None else spec.speed_kimg)
        self.most = 1.0 if spec.max_p is None else spec.max_p
        self.p = torch.tensor(min(spec.p or 0.0, self.most), dtype=torch.float64)
        self.signs = torch.zeros(2, dtype=torch.float64)

    def observe(self, logits_real: Tensor, critic_step: int, world: World) -> None:
        """Takes note of D's logits on this rank's real images in D step `critic_step`. A speed of 0 leaves p alone.

        Signs are added up over ranks in whole numbers, so p does not depend on their number.
        """
        if not self.speed_nimg:
            return
        self.p, self.signs = self.p.to(logits_real.device), self.signs.to(logits_real.device)
        seen = self.signs.new_tensor(float(len(logits_real)))
        self.signs = self.signs + world.sum(torch.stack([logits_real.detach().sign().sum().double(), seen]))
        if (critic_step + 1) % INTERVAL == 0:
            total, count = self.signs.unbind()
            step = torch.sign(total / count - self.target) * count / self.speed_nimg
            self.p = (self.p + step).clamp(0.0, self.most)
            self.signs = torch.zeros_like(self.signs)

    def state_dict(self) -> dict[str, Tensor]:
        return {"p": self.p, "signs": self.signs}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.p, self.signs = state["p"].to(self.p.device), state["signs"].to(self.signs.device)
