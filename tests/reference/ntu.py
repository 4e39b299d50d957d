"""The protocols of NTU RGB+D, one sample at a time."""

# the training subjects as the authors of the sets print them
SUBJECTS_60 = [1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38]
SUBJECTS_120 = [
    *(1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38, 45, 46, 47, 49),
    *(50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93),
    *(94, 95, 97, 98, 100, 103),
]
NOVEL = [1, 7, 13, 19, 25, 31, 37, 43, 49, 55, 61, 67, 73, 79, 85, 91, 97, 103, 109, 115]


def in_60(name):
    return int(name[17:20]) <= 60 and int(name[1:4]) <= 17


def splits_of(name, large):
    """The splits that a sample is in, for a set that goes beyond NTU RGB+D 60 or not."""
    setup, camera, subject, action = (int(name[i : i + 3]) for i in (1, 5, 9, 17))
    found = set()
    if in_60(name):
        front = "ntu60_" if large else ""
        found.add(front + ("xsub_train" if subject in SUBJECTS_60 else "xsub_val"))
        found.add(front + ("xview_val" if camera == 1 else "xview_train"))
    if large:
        found.add("xsub_train" if subject in SUBJECTS_120 else "xsub_val")
        found.add("xset_train" if setup in range(2, 33, 2) else "xset_val")
        exemplar = f"S{1 if action < 61 else 18:03}C003P008R001A{action:03}"
        if action not in NOVEL:
            found.add("oneshot_auxiliary")
        else:
            found.add("oneshot_exemplars" if name == exemplar else "oneshot_val")
    return found
