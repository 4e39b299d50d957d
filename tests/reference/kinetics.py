"""How the two published forms of Kinetics-400 skeletons are read, in loops."""

import numpy as np


def decompress(keypoint, frame, box_score, threshold, most):
    """(M, T, V, 3) from N skeletons with frame numbers: squeeze, fill in order, cap by score."""
    by_frame = {}
    for pose, number, box in zip(keypoint, frame, box_score, strict=True):
        if float(box) >= threshold:
            by_frame.setdefault(int(number), []).append(pose)
    persons = max(len(poses) for poses in by_frame.values())
    if persons > most:
        for number, poses in by_frame.items():
            ranked = sorted(poses, key=lambda pose: -sum(float(joint[2]) for joint in pose))
            by_frame[number] = ranked[:most]
    clip = np.zeros((min(persons, most), len(by_frame), *keypoint.shape[1:]), keypoint.dtype)
    for t, number in enumerate(sorted(by_frame)):
        for k, pose in enumerate(by_frame[number]):
            clip[k, t] = pose
    return clip


def openpose_clip(content, height, width, most):
    """(M, T, 18, 2) pixels and (M, T, 18) scores: the first persons, sorted by summed score."""
    frames = max(entry["frame_index"] for entry in content["data"])
    persons = max(len(entry["skeleton"][:most]) for entry in content["data"])
    keypoint, score = np.zeros((persons, frames, 18, 2)), np.zeros((persons, frames, 18))
    for entry in content["data"]:
        ranked = sorted(entry["skeleton"][:most], key=lambda person: -sum(person["score"]))
        for k, person in enumerate(ranked):
            for v, confidence in enumerate(person["score"]):
                if confidence > 0:
                    x, y = person["pose"][2 * v], person["pose"][2 * v + 1]
                    keypoint[k, entry["frame_index"] - 1, v] = x * width, y * height
                    score[k, entry["frame_index"] - 1, v] = confidence
    return keypoint, score
