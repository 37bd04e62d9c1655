"""The demo: reconstruct a rendered scene, and compare the model with its known cameras."""

from pathlib import Path

from lgbatch.config import Settings
from lgbatch.pipelines import scene
from lgbatch.pipelines.pictures.model import draw_model
from lgbatch.pipelines.sfm import AtEnd, no_report
from lgbatch.pipelines.sfm import run as reconstruct_photos
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.evaluation.evaluate import evaluate
from lgbatch.reconstruction.evaluation.formats.strecha import write_strecha
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked


def run(
    out: str | Path,
    *,
    models: str | Path | None = None,
    settings: Settings | None = None,
    at_end: AtEnd = no_report,
) -> Summary:
    """Render photos of the scene into out/images, reconstruct them into `out`, and compare the model with the truth.

    The summary's `accuracy` holds the comparison; out/cameras has the true cameras as files NAME.camera, and
    out/model.png is a picture of the model. Raises LgbatchError as
    sfm.run does, and InputError if scikit-image, whose sample images hang in the scene, is not installed.
    """
    workspace = Workspace(Path(out))
    with locked(workspace.root, create=True):
        truth = scene.render(workspace.root / "images")
        write_strecha(truth, workspace.root / "cameras")
        summary = reconstruct_photos(
            workspace.root / "images", workspace.root, models=models, settings=settings, at_end=at_end
        )
        if summary.models:
            summary.accuracy = evaluate(workspace.sparse / "0", truth).as_dict()
            summary.write(workspace.summary)
            draw_model(workspace.sparse / "0", workspace.root / "model.png")
    return summary
