"""The settings of the choice of pairs."""

from dataclasses import dataclass

from lgbatch.configs.fields import PAIRS, setting

METHODS = ("auto", "exhaustive", "sequential", "spatial", "retrieval", "loops", "poses")


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """Which pairs of images to match."""

    pairing: str = setting(
        "auto",
        "Image pairs to match: auto, exhaustive, or several of sequential, spatial, retrieval, loops, poses, joined "
        "with +. auto: all pairs of up to 40 photos; of more, in rounds, photos that look alike, follow each other in "
        "their folder, or are near by GPS, and then along verified pairs. exhaustive: all. sequential: each photo with "
        "those that follow it in its folder, frame2 before frame10. spatial: photos near each other. retrieval: "
        "photos that look alike. loops: as retrieval, for every 10th photo of a folder. poses: photos with common "
        "points, or similar views, in a COLMAP model.",
        ("pairs", "bench run"),
        "stage",
        PAIRS,
        words=METHODS,
    )
    neighbours: int = setting(
        20,
        "Number of photos that each photo is paired with by spatial, retrieval, loops and poses. auto: number that the "
        "order of names, and the positions, propose for each photo.",
        ("pairs", "bench run"),
        "stage",
        PAIRS,
        low=1,
        only_with=("pairing", ("auto", "spatial", "retrieval", "loops", "poses")),
    )
    window: int = setting(
        10,
        "Sequential pairing: number of following photos that each photo is paired with.",
        ("pairs", "bench run"),
        "stage",
        PAIRS,
        low=1,
        only_with=("pairing", ("sequential",)),
    )
    quadratic_overlap: bool = setting(
        False,
        "Sequential pairing: also photos that follow 1, 2, 4, 8, ... places later. The window is the number of these "
        "distances.",
        ("pairs",),
        "stage",
        PAIRS,
        only_with=("pairing", ("sequential",)),
    )
    max_distance: float = setting(
        0.0,
        "Spatial pairing and auto: largest distance between two photos, in metres. 0: no limit.",
        ("pairs",),
        "stage",
        PAIRS,
        low=0.0,
        only_with=("pairing", ("auto", "spatial")),
    )
    positions: str = setting(
        "",
        "Spatial pairing and auto: text file of positions, instead of the GPS positions of EXIF. Lines are NAME X Y "
        "[Z] in metres or, after a first line 'name latitude longitude', degrees.",
        ("pairs",),
        "stage",
        PAIRS,
        only_with=("pairing", ("auto", "spatial")),
    )
    global_descriptors: str = setting(
        "",
        "Retrieval, loops and auto: HDF5 file of global descriptors in hloc's layout, which are compared in place of "
        "the local features.",
        ("pairs",),
        "stage",
        PAIRS,
        only_with=("pairing", ("auto", "retrieval", "loops")),
    )
    pairs_from: str = setting(
        "",
        "Pairing by poses: folder of a COLMAP model. Photos are paired that share its points or, if it has none, have "
        "similar views.",
        ("pairs",),
        "stage",
        PAIRS,
        only_with=("pairing", ("poses",)),
    )

    @property
    def pairing_methods(self) -> frozenset[str]:
        """The methods that the setting `pairing` joins."""
        return frozenset(self.pairing.split("+"))

    def check_pairing(self) -> None:
        """Raise ValueError if the methods exclude each other, or one lacks its file."""
        for alone in {"auto", "exhaustive"} & self.pairing_methods if len(self.pairing_methods) > 1 else ():
            raise ValueError(f"pairing {alone} cannot be joined with other methods, as in {self.pairing!r}")
        if "poses" in self.pairing_methods and not self.pairs_from:
            raise ValueError("pairing poses needs pairs_from, the folder of a COLMAP model")
