"""The whole tool on a scene that it makes itself, with cameras that are known."""

from pathlib import Path

from lgbatch.config import Settings
from lgbatch.pipelines import scene, sfm
from lgbatch.pipelines.model_picture import draw_model
from lgbatch.pipelines.summary import Summary
from lgbatch.reconstruction.evaluate import evaluate
from lgbatch.workspace.folder import Workspace
from lgbatch.workspace.lock import locked


def run(out: str | Path, *, models: str | Path | None = None, settings: Settings | None = None) -> Summary:
    """Render the demo's photos into out/images, reconstruct them into `out`, and compare with the true cameras.

    The comparison is the summary's `accuracy`, and out/model.png is a picture of the model. Raises LgbatchError as
    sfm.run, and InputError where scikit-image, which carries the pictures in the scene, is not installed.
    """
    workspace = Workspace(Path(out))
    with locked(workspace.root, make=True):
        truth = scene.render(workspace.root / "images")
        summary = sfm.run(workspace.root / "images", workspace.root, models=models, settings=settings)
        if summary.models:
            summary.accuracy = evaluate(workspace.sparse / "0", truth).as_dict()
            summary.write(workspace.summary)
            draw_model(workspace.sparse / "0", workspace.root / "model.png")
    return summary
