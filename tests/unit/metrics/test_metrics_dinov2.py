"""DINOv2's transformer against torchvision's, an independent implementation, with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stand_ins import random_images
from torchvision.models.vision_transformer import VisionTransformer as Torchvision

from tlgan.errors import DataError, NotFound
from tlgan.metrics.dinov2 import VisionTransformer, build
from tlgan.metrics.extractors import open_extractor
from tlgan.models import seeded

WIDTH, DEPTH, HIDDEN, SIDE = 128, 3, 256, 56


def network(side: int = SIDE, gated: bool = False) -> VisionTransformer:
    """Two heads, random weights everywhere, scales too."""
    with seeded(0):
        vit = VisionTransformer(WIDTH, DEPTH, HIDDEN, (side // 14) ** 2 + 1, gated)
        for p in vit.parameters():
            torch.nn.init.normal_(p, std=0.2)
    return vit.eval().requires_grad_(False)


def torchvisions(vit: VisionTransformer) -> Torchvision:
    """The same network: its layers have no scales, so these go into the linear layers before them."""
    other = Torchvision(
        image_size=SIDE, patch_size=14, num_layers=DEPTH, num_heads=WIDTH // 64, hidden_dim=WIDTH, mlp_dim=HIDDEN
    )
    state = {
        "class_token": vit.cls_token,
        "conv_proj.weight": vit.patch_embed["proj"].weight,
        "conv_proj.bias": vit.patch_embed["proj"].bias,
        "encoder.pos_embedding": vit.pos_embed,
        "encoder.ln.weight": vit.norm.weight,
        "encoder.ln.bias": vit.norm.bias,
    }
    for number, block in enumerate(vit.blocks):
        to = f"encoder.layers.encoder_layer_{number}."
        for name, norm in (("ln_1", block.norm1), ("ln_2", block.norm2)):
            state |= {f"{to}{name}.weight": norm.weight, f"{to}{name}.bias": norm.bias}
        attention, scale = block.attn, block.ls1.gamma
        state |= {f"{to}self_attention.in_proj_weight": attention.qkv.weight}
        state |= {f"{to}self_attention.in_proj_bias": attention.qkv.bias}
        state |= {f"{to}self_attention.out_proj.weight": attention.proj.weight * scale[:, None]}
        state |= {f"{to}self_attention.out_proj.bias": attention.proj.bias * scale}
        scale = block.ls2.gamma
        state |= {f"{to}mlp.0.weight": block.mlp.fc1.weight, f"{to}mlp.0.bias": block.mlp.fc1.bias}
        state |= {
            f"{to}mlp.3.weight": block.mlp.fc2.weight * scale[:, None],
            f"{to}mlp.3.bias": block.mlp.fc2.bias * scale,
        }
    other.heads = torch.nn.Identity()
    other.load_state_dict(state)
    return other.eval()


def test_it_is_torchvisions_transformer_with_scales() -> None:
    vit, x = network(), torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(vit(x), torchvisions(vit)(x), rtol=1e-4, atol=1e-4)


def test_the_gated_part_is_swiglu() -> None:
    mlp, x = network(gated=True).blocks[0].mlp, torch.randn(5, WIDTH)
    hidden = x @ mlp.w12.weight.T + mlp.w12.bias
    gate, value = hidden[:, :HIDDEN], hidden[:, HIDDEN:]
    expected = (gate * torch.sigmoid(gate) * value) @ mlp.w3.weight.T + mlp.w3.bias
    torch.testing.assert_close(mlp(x), expected)


def test_positions_of_another_grid_are_interpolated() -> None:
    vit = network(side=518)  # as pretrained: 37 x 37
    ramp = torch.linspace(0, 1, 37)
    vit.pos_embed[:, 1:] = (ramp[:, None] * torch.ones(37)).reshape(1, -1, 1)
    found = vit._positions(16, 16)[0, 1:, 0].view(16, 16)
    source = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5  # by the size plus 0.1, as in the release
    expected = (source / 36)[:, None].expand(-1, 16)
    torch.testing.assert_close(found[2:-1], expected[2:-1], atol=3e-3, rtol=0)  # without the 0.1 the last are 5e-3 off
    assert torch.equal(vit._positions(37, 37), vit.pos_embed)


@pytest.mark.parametrize("gated", [False, True])
def test_size_and_depth_are_read_off_the_file(gated: bool, tmp_path: Path) -> None:
    vit = network(side=224, gated=gated)
    torch.save(vit.state_dict(), tmp_path / "dino.pth")
    extractor = open_extractor(f"dinov2:{tmp_path / 'dino.pth'}")
    images = random_images(3, 2, channels=3, size=224)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(extractor(images), vit((images / 255 - mean) / std), rtol=1e-4, atol=1e-4)
    assert (extractor.protocol["width"], extractor.protocol["depth"]) == (WIDTH, DEPTH)
    assert build(vit.state_dict()).state_dict().keys() == vit.state_dict().keys()


def test_mistakes_say_where_to_get_the_weights(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file") as caught:
        open_extractor(f"dinov2:{tmp_path / 'none.pth'}")
    assert "dinov2_vitl14_pretrain.pth" in str(caught.value.hint)
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="does not hold DINOv2's vision transformer"):
        open_extractor(f"dinov2:{tmp_path / 'other.pth'}")
    state = network().state_dict()
    del state["norm.bias"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(DataError, match=r"does not hold DINOv2.*norm\.bias"):
        open_extractor(f"dinov2:{tmp_path / 'part.pth'}")
