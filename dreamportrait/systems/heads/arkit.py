"""The 52 expressions of ARKit, in Apple's spelling. Left and right are those of the head."""

SIDES = ("Left", "Right")
NAMES = (
    *(
        f"eye{what}{side}"
        for side in SIDES
        for what in ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
    ),
    *("jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker"),
    *("mouthLeft", "mouthRight"),
    *(f"mouth{what}{side}" for what in ("Smile", "Frown", "Dimple", "Stretch") for side in SIDES),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *(f"mouth{what}{side}" for what in ("Press", "LowerDown", "UpperUp") for side in SIDES),
    *(f"browDown{side}" for side in SIDES),
    "browInnerUp",
    *(f"browOuterUp{side}" for side in SIDES),
    "cheekPuff",
    *(f"{what}{side}" for what in ("cheekSquint", "noseSneer") for side in SIDES),
    "tongueOut",
)
