"""Colours that the colour-blind can tell apart, on white as on black.

Source: Okabe and Ito, "Color Universal Design" (2008); without its black and its yellow, which are
hardly seen on one of the two.
"""

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
PINK, SKY, RED = "#CC79A7", "#56B4E9", "#D55E00"
GREY = "#8c8c8c"
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
BEST = RED  # the best trial, everywhere
STATUS = {  # the colours of trials, by what became of them
    "running": SKY,
    "went on": BLUE,
    "ended": GREEN,
    "stopped": GREY,
    "paused": ORANGE,
    "failed": RED,
}
