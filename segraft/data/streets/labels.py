"""Cityscapes' label ids (Cordts et al. 2016), as gtFine's labelIds masks hold them."""

from __future__ import annotations

EGO = 1  # void: the own car's hood
STATIC = 4  # void: bins and other things that stand about
ROAD = 7
SIDEWALK = 8
BUILDING = 11
WALL = 12
FENCE = 13
POLE = 17
TRAFFIC_LIGHT = 19
TRAFFIC_SIGN = 20
VEGETATION = 21
TERRAIN = 22
SKY = 23
PERSON = 24
RIDER = 25
CAR = 26
TRUCK = 27
BUS = 28
TRAIN = 31
MOTORCYCLE = 32
BICYCLE = 33

CLASSES = (
    *(ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN),
    *(SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE),
)
"""The label id of each trainId."""
VOID = (EGO, STATIC)
"""The label ids that training ignores."""
