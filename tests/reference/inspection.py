"""Content of a store, counted with plain loops over persons, frames and joints."""

import math


def clip(recording, joints):
    """The values of one clip, by the names in `Inspection`."""
    points = recording.keypoint.astype(float).tolist()
    score = None if recording.score is None else recording.score.astype(float).tolist()
    persons, frames = len(points), len(points[0])

    def visible(m, t, v):
        values = [*points[m][t][v], *([] if score is None else [score[m][t][v]])]
        if not all(math.isfinite(value) for value in values):
            return False
        return any(value != 0 for value in values) if score is None else score[m][t][v] > 0

    def body(m, t):
        return any(visible(m, t, v) for v in range(len(joints)))

    every = [(m, t, v) for m in range(persons) for t in range(frames) for v in range(len(joints))]
    seen = [at for at in every if visible(*at)]
    bodies = [(m, t) for m in range(persons) for t in range(frames) if body(m, t)]
    return {
        "visible": len(seen),
        "not_finite": sum(
            not all(
                math.isfinite(value)
                for value in [*points[m][t][v], *([] if score is None else [score[m][t][v]])]
            )
            for m, t, v in every
        ),
        "persons": sum(any(body(m, t) for t in range(frames)) for m in range(persons)),
        "empty": sum(not any(body(m, t) for m in range(persons)) for t in range(frames)),
        "returns": sum(comebacks([body(m, t) for t in range(frames)]) for m in range(persons)),
        "frozen": bool(bodies)
        and frames > 1
        and all(person == person[:1] * frames for person in points),
        **image(recording.frame_size, points, seen),
        "size": mean(
            [
                extent(points[m][t], [v for v in range(len(joints)) if visible(m, t, v)])
                for m, t in bodies
            ]
        ),
        "drop": mean(
            [
                drop(points[m][t], [visible(m, t, v) for v in range(len(joints))], joints)
                for m, t in bodies
            ]
        ),
        "missing": [sum(not visible(m, t, v) for m, t in bodies) for v in range(len(joints))],
        "bodies": len(bodies),
        "points": [points[m][t][v] for m, t, v in seen],
    }


def comebacks(there):
    text = "".join("x" if one else " " for one in there)
    return max(0, len(text.split()) - 1)


def image(size, points, seen):
    if size is None:
        return {"outside": 0, "swapped": False}
    places = [points[m][t][v] for m, t, v in seen]
    height, width = size
    out = sum(not (0 <= x <= width and 0 <= y <= height) for x, y in places)
    turned = sum(not (0 <= x <= height and 0 <= y <= width) for x, y in places)
    return {"outside": out, "swapped": out > len(places) / 20 and turned < out / 10}


def extent(pose, joints):
    return max(
        max(pose[v][c] for v in joints) - min(pose[v][c] for v in joints)
        for c in range(len(pose[0]))
    )


def drop(pose, visible, names):
    """None unless the head and a foot are visible."""
    head = [v for v, name in enumerate(names) if name == "head" and visible[v]]
    feet = [v for v, name in enumerate(names) if name.endswith(("foot", "ankle")) and visible[v]]
    if not head or not feet:
        return None
    return sum(pose[v][1] for v in feet) / len(feet) - pose[head[0]][1]


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else math.nan
