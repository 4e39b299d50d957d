"""Made-up files of pose estimators, all from the same poses."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskclr_pl.skeletons.skeleton import SKELETONS

COCO = SKELETONS["coco17"].joints
Truth = dict[int, list[np.ndarray]]
"""Frame number -> (V, 3) poses."""


def truth(joints: int = 17, frames: int = 12, first: int = 0) -> Truth:
    """Two persons far apart that walk to the right; the second is there from frame 3 on.

    Joint 2 of the first person is never found; frame 5 is empty.
    """
    rng = np.random.default_rng(joints)
    shapes = rng.uniform(0, 100, (2, joints, 2)) + np.array([[[100, 200]], [[500, 200]]])
    found: Truth = {}
    for i in range(frames):
        poses = []
        for person in range(1 if i < 3 else 2):
            score = rng.uniform(0.1, 0.9, joints)
            pose = np.column_stack([shapes[person] + [2 * i, i], score])
            if person == 0:
                pose[2] = 0
            poses.append(pose.round(3))
        found[first + i] = [] if i == 5 else poses
    return found


def flat(pose: np.ndarray) -> list[float]:
    return [float(value) for value in pose.reshape(-1)]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def alphapose(folder: Path, poses: Truth) -> Path:
    people = [
        {
            "image_id": f"{i}.jpg",
            "category_id": 1,
            "keypoints": flat(pose),
            "score": 2.9,
            "box": [1.5, 2.5, 30.0, 40.0],
            "idx": [0.0],
        }
        for i in poses
        for pose in poses[i]
    ]
    random.Random(0).shuffle(people)
    return write(folder / "alphapose-results.json", people)


def alphapose_open(folder: Path, poses: Truth) -> Path:
    images = {
        f"{i}.jpg": {"version": "AlphaPose", "people": [{"pose_keypoints_2d": flat(p)} for p in ps]}
        for i, ps in poses.items()
    }
    return write(folder / "alphapose-results.json", images)


def poseflow(folder: Path, poses: Truth) -> Path:
    images = {
        f"{i:04d}.png": [
            {"keypoints": flat(pose), "scores": 4.2, "box": [0, 0, 1, 1], "idx": person + 1}
            for person, pose in enumerate(ps)
        ]
        for i, ps in poses.items()
    }
    return write(folder / "tracked.json", images)


def openpose(folder: Path, poses: Truth) -> Path:
    for i, ps in poses.items():
        people = [
            {"person_id": [-1], "pose_keypoints_2d": flat(p), "face_keypoints_2d": []} for p in ps
        ]
        write(folder / f"walk_2_{i:012d}_keypoints.json", {"version": 1.3, "people": people})
    return folder


def openpifpaf_images(folder: Path, poses: Truth) -> Path:
    for i, ps in poses.items():
        people = [
            {"keypoints": flat(p), "bbox": [0, 0, 1, 1], "score": 0.7, "category_id": 1} for p in ps
        ]
        write(folder / f"frame{i}.jpg.predictions.json", people)  # 10 comes before 2 in the folder
    return folder


def openpifpaf_video(folder: Path, poses: Truth) -> Path:
    lines = [
        json.dumps(
            {
                "frame": i,
                "predictions": [
                    {"keypoints": flat(p), "bbox": [0, 0, 1, 1], "score": 0.7, "id_": 7 + person}
                    for person, p in enumerate(ps)
                ],
            }
        )
        for i, ps in poses.items()
    ]
    return write(folder / "walk.mp4.openpifpaf.json", "\n".join(lines) + "\n")


def mmpose_person(pose: np.ndarray) -> dict[str, Any]:
    return {
        "keypoints": pose[:, :2].tolist(),
        "keypoint_scores": pose[:, 2].tolist(),
        "bbox": [[0.0, 0.0, 1.0, 1.0]],
        "bbox_score": 0.8,
    }


def mmpose_list(folder: Path, poses: Truth) -> Path:
    people = [[mmpose_person(pose) for pose in ps] for ps in poses.values()]
    return write(folder / "walk.json", people)


def mmpose_video(folder: Path, poses: Truth) -> Path:
    frames = [
        {"frame_id": i, "instances": [mmpose_person(pose) for pose in ps]}
        for i, ps in poses.items()
    ]
    return write(
        folder / "walk.json", {"meta_info": {"dataset_name": "x"}, "instance_info": frames}
    )


def mmpose_images(folder: Path, poses: Truth) -> Path:
    for i, ps in poses.items():
        write(folder / f"{i:06d}.json", [mmpose_person(pose) for pose in ps])
    return folder


def coco(folder: Path, poses: Truth) -> Path:
    """The ids of the images are not the order of the frames."""
    images = [
        {"id": 900 - i, "file_name": f"walk/{i:06d}.jpg", "width": 1280, "height": 720}
        for i in poses
    ]
    people = [
        {"id": 10 * i + k, "image_id": 900 - i, "category_id": 1, "keypoints": flat(pose)}
        for i, ps in poses.items()
        for k, pose in enumerate(ps)
    ]
    return write(folder / "person_keypoints.json", {"images": images, "annotations": people})


def coco_results(folder: Path, poses: Truth) -> Path:
    people = [
        {"image_id": i, "category_id": 1, "keypoints": flat(pose), "score": 0.9}
        for i, ps in poses.items()
        for pose in ps
    ]
    return write(folder / "results.json", people)


def stgcn(folder: Path, poses: Truth) -> Path:
    frames = [
        {
            "frame_index": i,
            "skeleton": [
                {"pose": flat(p[:, :2] / [1280, 720]), "score": p[:, 2].tolist()} for p in ps
            ],
        }
        for i, ps in poses.items()
    ]
    return write(folder / "walk.json", {"data": frames, "label": "walk", "label_index": 3})


def table(path: Path, videos: dict[str, Truth], joints: Sequence[str] = COCO) -> Path:
    """CSV: video, frame and person, then x, y and score of some of COCO's joints."""
    places = [COCO.index(joint) for joint in joints]
    header = ["video", "frame", "person", *(f"{j}_{k}" for j in joints for k in ("x", "y", "s"))]
    lines = [",".join([*header, "label"])]
    for name, poses in videos.items():
        for frame, persons in poses.items():
            for person, pose in enumerate(persons):
                values = [str(value) for value in pose[places].reshape(-1)]
                lines.append(",".join([name, str(frame), str(person), *values, "walk"]))
    return write(path, "\n".join(lines) + "\n")


FORMATS: list[tuple[Callable[[Path, Truth], Path], int]] = [
    *((alphapose, joints) for joints in (17, 26)),
    (alphapose_open, 18),
    *((openpose, joints) for joints in (18, 25)),
    *((tool, 17) for tool in (poseflow, openpifpaf_images, openpifpaf_video)),
    *((tool, 17) for tool in (mmpose_list, mmpose_video, mmpose_images, coco, coco_results)),
    (stgcn, 18),
]
