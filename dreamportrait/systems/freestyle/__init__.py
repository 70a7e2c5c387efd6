"""Free-style portraits: a sentence gives a new style, learnt by a network from pictures to tri-planes.

"The paper" is "Free-style and Fast 3D Portrait Synthesis".
"""
