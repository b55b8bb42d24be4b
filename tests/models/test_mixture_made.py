from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from fastgen.models import MixtureMADE


@pytest.mark.parametrize("components", [1, 4])
@pytest.mark.parametrize("masks", [1, 3])
def test_log_prob_is_that_of_torch_s_mixtures(densities, components: int, masks: int) -> None:  # type: ignore[no-untyped-def]
    model = densities.ensemble("mixture", 5, components=components, masks=masks, context_features=2)
    x, context = 2 * torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    for mask in range(masks):
        logits, means, log_scales = model.made(x, context, mask).chunk(3, -1)
        scales = model.conditional.scale_map(log_scales).exp()
        expected = MixtureSameFamily(Categorical(logits=logits), Normal(means, scales)).log_prob(x).sum(-1)
        torch.testing.assert_close(model.log_prob(x, context, mask=mask), expected, rtol=1e-11, atol=1e-11)


def test_training_finds_separate_modes() -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 1) * 0.1 + torch.tensor([-1.5, 0.0, 1.5])[torch.randint(3, (512, 1))]
    model = MixtureMADE(1, components=6, hidden_features=(16,))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -model.log_prob(x).mean()
        loss.backward()
        optimizer.step()
    # The entropy of three equal modes that do not overlap; a Gaussian of the same variance has 1.63 nats.
    entropy = torch.tensor(3.0).log() + Normal(0.0, 0.1).entropy()
    assert abs(float(loss.detach() - entropy)) < 0.1
    assert model.config["components"] == 6 and model.config["scale_map"]["kind"] == "soft_clip"
