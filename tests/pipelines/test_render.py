import numpy as np

from lgbatch.pipelines import scene
from lgbatch.pipelines.render import Quad, view
from lgbatch.reconstruction.evaluation.truth import Array, KnownCamera


def ray_cast(camera: KnownCamera, quads: list[Quad], pixels: Array) -> Array:
    """Colours (P, 3) at pixels (P, 2), by ray casting: no homography, no depth buffer."""
    rotation, translation = camera.camera_from_world[:, :3], camera.camera_from_world[:, 3]
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(camera.calibration).T @ rotation
    eye = -rotation.T @ translation
    colours, nearest = np.zeros((len(pixels), 3)), np.full(len(pixels), np.inf)
    for quad in quads:
        normal = np.cross(quad.right, quad.down)
        if normal @ (quad.corner - eye) <= 0:
            continue
        depth = normal @ (quad.corner - eye) / (rays @ normal)
        hits = eye + depth[:, None] * rays - quad.corner
        h, w = quad.texture.shape[:2]
        u = np.floor(hits @ quad.right / (quad.right @ quad.right) * w).astype(int)
        v = np.floor(hits @ quad.down / (quad.down @ quad.down) * h).astype(int)
        front = (depth > 0) & (depth < nearest) & (u >= 0) & (u < w) & (v >= 0) & (v < h)
        nearest[front] = depth[front]
        colours[front] = quad.texture[v[front], u[front]]
    return colours


def test_a_spot_appears_where_its_point_projects() -> None:
    w, h, u, v, metres = 300, 200, 120, 71, 0.5
    y, x = np.mgrid[:h, :w]
    spot = np.rint(250 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 6**2))).astype(np.uint8)
    right, down = np.array([metres, 0, 0]), np.array([0, metres * h / w, 0])
    corner = np.array([-0.3, -1.6, 4.5])
    quad = Quad(corner, right, down, np.repeat(spot[..., None], 3, axis=2))
    point = corner + (u + 0.5) / w * right + (v + 0.5) / h * down
    for name, camera in scene.cameras().items():
        image = view(camera, [quad])[..., 0].astype(np.float64)
        rows, columns = np.mgrid[: scene.SIZE[1], : scene.SIZE[0]]
        centroid = np.array([(image * columns).sum(), (image * rows).sum()]) / image.sum()
        assert np.abs(centroid - camera.project(point[None])[0]).max() < 0.03, name


def test_pixels_agree_with_ray_casting() -> None:
    quads, camera = scene.gallery(), scene.cameras()["view_00.jpg"]
    image = view(camera, quads)
    rng = np.random.default_rng(0)
    pixels = np.column_stack([rng.integers(2, n - 2, 3000) for n in scene.SIZE])
    grid = (np.arange(5) + 0.5) / 5 - 0.5
    samples = [np.array([dx, dy]) for dx in grid for dy in grid]

    def error(x: float, y: float) -> float:
        """Mean error in grey levels, if the image were shifted by (x, y) pixels."""
        shifted = pixels + np.array([x, y])
        expected = np.mean([ray_cast(camera, quads, shifted + sample) for sample in samples], axis=0)
        return float(np.abs(image[pixels[:, 1], pixels[:, 0]] - expected).mean())

    assert error(0, 0) < 1
    assert min(error(0.5, 0), error(-0.5, 0), error(0, 0.5), error(0, -0.5)) > 3


def test_the_nearer_quad_hides_the_other_in_either_order() -> None:
    camera = KnownCamera(np.eye(3, 4), np.array([[100, 0, 31.5], [0, 100, 23.5], [0, 0, 1]]), (64, 48))
    grey = [np.full((4, 4, 3), level, np.uint8) for level in (50, 200)]
    far = Quad(np.array([-2.0, -2, 4]), np.array([4.0, 0, 0]), np.array([0, 4.0, 0]), grey[0])
    near = Quad(np.array([-0.1, -0.1, 1]), np.array([0.2, 0, 0]), np.array([0, 0.2, 0]), grey[1])
    for quads in [far, near], [near, far]:
        image = view(camera, quads)[..., 0]
        expected = np.full((48, 64), 50)
        expected[14:34, 22:42] = 200
        np.testing.assert_array_equal(image, expected)
    reversed_quad = Quad(near.corner + near.right, -near.right, near.down, grey[1])
    assert view(camera, [far, reversed_quad]).max() == 50


def test_a_quad_may_reach_behind_the_camera_or_lie_outside() -> None:
    camera = KnownCamera(np.eye(3, 4), np.array([[100, 0, 31.5], [0, 100, 23.5], [0, 0, 1]]), (64, 48))
    white = np.full((4, 4, 3), 255, np.uint8)
    floor = Quad(np.array([-9.0, 1, 9]), np.array([18.0, 0, 0]), np.array([0, 0, -18.0]), white)
    horizon = camera.project(np.array([[0, 1.0, 9]]))[0, 1]
    image = view(camera, [floor])[..., 0]
    assert image[: int(horizon)].max() == 0 and image[int(horizon) + 2 :].min() == 255
    outside = Quad(np.array([50.0, 0, 4]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), white)
    assert view(camera, [outside]).max() == 0
