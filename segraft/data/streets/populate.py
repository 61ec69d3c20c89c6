"""Populate a street: buildings and gardens, street furniture, traffic, people."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from segraft.data.streets import buildings, furniture, people, plants, vehicles
from segraft.data.streets.buildings import DEPTH, Building
from segraft.data.streets.canvas import Canvas, Color
from segraft.data.streets.ground import Footprint
from segraft.data.streets.scene import PANEL, Scene, Thing
from segraft.data.streets.street import FAR, Rng, Side, Street, pick, vary

BODY = 0.5
"""The share of a vehicle's height up to which nothing is seen through it."""


def populate(street: Street, rng: Rng) -> Scene:
    """Draw what stands on a street."""
    scene = Scene(street)
    leaves = vary(rng, pick(rng, plants.LEAVES), 10)
    for side in street.sides:
        _build(scene, side, rng, leaves)
        _plant(scene, side, rng, leaves)
        _furnish(scene, side, rng)
        _park(scene, side, rng)
        _walkers(scene, side, rng)
    _traffic(scene, rng)
    _crossers(scene, rng)
    scene.things.sort(key=lambda thing: -thing.far)
    return scene


def _build(scene: Scene, side: Side, rng: Rng, leaves: Color) -> None:
    """Buildings with gardens between and before them, as the style of the side has it."""
    z = rng.uniform(-6, 4)
    town, bare = side.style == "town", True
    while z < FAR:
        length = rng.uniform(9, 24) if town else rng.uniform(8, 13)
        setback = 0.0 if town else rng.uniform(3, 7)
        if not scene.street.free(z, length, 1.0 if town else 3.0):
            z, bare = z + 3.0, True
            continue
        if side.style != "park" or rng.random() < 0.08:
            height = rng.uniform(9, 24) if town else rng.uniform(4.5, 8)
            roof = rng.uniform(2, 3.5) if not town or rng.random() < 0.25 else 0.0
            house = Building(side, setback, z, z + length, height, roof, town and rng.random() < 0.55, bare)
            if z + length > 3.5:
                s, tall = side.sign * (side.wall + setback + 0.5 * DEPTH), height + roof
                foot = Footprint(s, z + 0.5 * length, 0.5 * DEPTH, 0.5 * length, tall)
                scene.things.append(Thing(z + length, house.paint, foot, solid=height / tall, casts=False))
            scene.skyline[int(side.sign > 0)][max(0, int(z + 50)) : int(z + length + 50)] = height
        gap = (0.0 if rng.random() < 0.8 else rng.uniform(3, 9)) if town else rng.uniform(2, 9)
        if gap > 2.5:
            _trees(scene, side, rng, leaves, setback + 3, (z + length + 1, z + length + gap))
        z, bare = z + length + gap, gap > 0
    if not town:
        _border(scene, side, rng, leaves)
        _trees(scene, side, rng, leaves, 3.0 if side.style == "park" else 9.0, (4, FAR * 0.8))
    elif rng.random() < 0.5:
        start = rng.uniform(5, 50)
        _fenced(scene, side, rng, leaves, (start, start + rng.uniform(6, 25)), side.edge + 0.45 - side.wall)


def _border(scene: Scene, side: Side, rng: Rng, leaves: Color) -> None:
    """What separates gardens from the pavement."""
    z = rng.uniform(1.5, 6)
    while z < FAR * 0.7:
        length = rng.uniform(9, 22)
        _fenced(scene, side, rng, leaves, (z, z + length), 0.3)
        z += length + rng.uniform(0.5, 6)


def _fenced(scene: Scene, side: Side, rng: Rng, leaves: Color, span: tuple[float, float], setback: float) -> None:
    kind = pick(rng, ("fence", "fence", "wall", "wall", "hedge"))
    look, height = int(rng.random() * 3), rng.uniform(0.9, 1.5)
    if setback < 0:  # a railing at the kerb
        kind, look, height = "fence", 1, rng.uniform(0.9, 1.1)
    if kind == "wall":
        height = rng.uniform(0.9, 2.6)
    s = side.sign * (side.wall + setback)
    paint: Callable[..., None] = {
        "fence": partial(buildings.paint_fence, look=look),
        "wall": partial(buildings.paint_wall, look=look),
        "hedge": partial(buildings.paint_hedge, color=leaves),
    }[kind]
    z = span[0]
    while z < span[1]:
        end = min(z + 7.0, span[1])
        if scene.street.free(z, end - z, 1.5):
            draw = partial(_panel, paint, s, (z, end), height)
            foot = Footprint(s, (z + end) / 2, PANEL, (end - z) / 2, height)
            scene.things.append(Thing(end, draw, foot, solid=float(kind != "fence")))
        z = end


def _panel(
    paint: Callable[..., None], s: float, z: tuple[float, float], height: float, canvas: Canvas, rng: Rng, shadow: float
) -> None:
    paint(canvas, rng, s=s, span=z, height=height)


def _trees(scene: Scene, side: Side, rng: Rng, leaves: Color, setback: float, span: tuple[float, float]) -> None:
    z = span[0]
    while z < span[1]:
        s = side.sign * (side.wall + setback + rng.uniform(0, 6))
        if scene.street.free(z, 0, 2):
            _tree(scene, rng, s, z, rng.uniform(5, 11), leaves)
        z += rng.uniform(3, 9) * (1 + z / 50)


def _tree(scene: Scene, rng: Rng, s: float, z: float, height: float, leaves: Color) -> None:
    draw = partial(plants.tree, rng=rng, height=height, leaves=vary(rng, leaves, 8))
    scene.stand(s, z, draw, (height * 0.24, height * 0.24, height), lift=height * 0.3, over=height * 0.24)


def _plant(scene: Scene, side: Side, rng: Rng, leaves: Color) -> None:
    """Trees in a row at the kerb, and shrubs."""
    if rng.random() < 0.4:
        step, height, s = rng.uniform(7, 13), rng.uniform(5, 9), side.sign * (side.edge + rng.uniform(0.7, 1.2))
        for z in np.arange(rng.uniform(7, 14), FAR * 0.8, step):
            if scene.street.free(float(z)):
                _tree(scene, rng, s, float(z), height * rng.uniform(0.85, 1.15), leaves)
    for _ in range(rng.randrange(6) if side.style != "town" else 0):
        size, z = rng.uniform(0.6, 1.8), rng.uniform(5, 60)
        if scene.street.free(z):
            draw = partial(plants.bush, rng=rng, size=size, leaves=vary(rng, leaves, 12))
            scene.stand(side.sign * (side.wall + rng.uniform(0.8, 3)), z, draw, (size * 0.6, size * 0.6, size))


def _furnish(scene: Scene, side: Side, rng: Rng) -> None:
    """Lamps, signs, traffic lights, masts, bollards, bins."""
    street, kerb = scene.street, side.sign * (side.edge + 0.45)
    step, height = rng.uniform(18, 34), rng.uniform(5.5, 8.5)
    for z in np.arange(rng.uniform(7, 20), FAR, step):
        if street.free(float(z), margin=0.5):
            draw = partial(furniture.lamp_post, rng=rng, side=side.sign, height=height)
            scene.stand(kerb, float(z), draw, (0.1, 0.1, height), over=3.0)
    for _ in range(rng.randrange(4)):
        z = rng.uniform(6, 55)
        if street.free(z, margin=0.5):
            scene.stand(kerb, z, partial(furniture.sign, rng=rng), (0.1, 0.1, 2.8), over=1.4)
    stop = street.crossing[0] - 1.2 if street.crossing else rng.uniform(12, 50)
    if rng.random() < (0.75 if street.crossing else 0.15):
        arm = rng.uniform(2.5, 4.5) if rng.random() < 0.35 else 0.0
        draw = partial(furniture.traffic_light, rng=rng, side=side.sign, arm=arm, state=int(rng.random() * 3))
        scene.stand(kerb, stop, draw, (0.12, 0.12, 3.4), over=arm + 0.5)
    if rng.random() < 0.2:
        for z in np.arange(stop - 7, stop - 1, 1.6):
            scene.stand(kerb, float(z), partial(furniture.pole, rng=rng, height=0.95), (0.08, 0.08, 0.95))
    if rng.random() < 0.35:
        z = rng.uniform(8, 50)
        scene.stand(
            side.sign * (side.edge + 0.7),
            z,
            partial(furniture.pole, rng=rng, height=rng.uniform(6, 9)),
            (0.12, 0.12, 7),
        )
    if rng.random() < 0.3:
        scene.stand(
            side.sign * (side.wall - 0.4), rng.uniform(6, 35), partial(furniture.bin_, rng=rng), (0.3, 0.3, 1.0)
        )


def _park(scene: Scene, side: Side, rng: Rng) -> None:
    """Parked cars, motorcycles and, on the pavement, bicycles."""
    heading = 0.0 if side.sign > 0 else np.pi
    s, z = side.sign * (side.edge - 1.05), rng.uniform(6, 12)
    while side.parking and z < FAR * 0.55:
        if rng.random() < 0.68 and scene.street.free(z - 3, 6, 0.5):
            _vehicle(scene, rng, s, z, heading, parked=True)
        elif rng.random() < 0.4 and scene.street.free(z):
            for k in range(rng.randrange(1, 4)):
                turn = heading + side.sign * rng.uniform(0.9, 1.5)
                scene.stand(s, z + k * 1.1, partial(people.motorcycle, rng=rng, rider=False), (0.3, 0.9, 1.0), turn)
        z += rng.uniform(5.6, 7.5)
    if rng.random() < 0.4:
        z, turn = rng.uniform(5, 40), side.sign * pick(rng, (0.1, 1.57, 1.3))
        for k in range(rng.randrange(1, 5)):
            if scene.street.free(z + 0.75 * k, margin=0.5):
                scene.stand(
                    side.sign * (side.walk + 0.3),
                    z + 0.75 * k,
                    partial(people.bicycle, rng=rng, rider=False),
                    (0.2, 0.8, 0.9),
                    turn,
                )


def _vehicle(scene: Scene, rng: Rng, s: float, z: float, heading: float, parked: bool = False) -> float:
    """Add a vehicle; returns the half of its length."""
    kind = rng.random()
    draw, half, width, height = vehicles.car, 2.2, 0.9, 1.45
    if kind < (0.05 if parked else 0.09):
        draw, half, width, height = vehicles.truck, 4.2, 1.2, 3.3
    elif kind < 0.17 and not parked:
        draw, half, width, height = vehicles.bus, 5.6, 1.25, 3.0
    scene.stand(s, z + half, partial(draw, rng=rng), (width, half, height), heading, awake=not parked, solid=BODY)
    return half


def _traffic(scene: Scene, rng: Rng) -> None:
    """Vehicles and riders on the lanes, a tram on its track."""
    street, camera = scene.street, scene.street.camera
    density = rng.uniform(0.25, 0.9)
    for lane in street.lanes:
        own = abs(lane - camera.lateral) < street.lane_width * 0.6
        heading = 0.0 if lane > 0 else np.pi
        tram = street.rails is not None and abs(lane - street.rails) < 0.3
        z = rng.uniform(9 if own else 5, 34)
        while z < FAR * 0.65:
            s = lane + rng.gauss(0, 0.15)
            if tram and rng.random() < 0.75:
                scene.stand(
                    lane, z + 12, partial(vehicles.tram, rng=rng), (1.2, 8.0, 3.5), heading, over=1.8, solid=BODY
                )
                z, tram = z + 30, False
            elif rng.random() < 0.17:
                _rider(scene, rng, s + rng.uniform(0, 0.8) * np.sign(lane), z, heading + rng.gauss(0, 0.1))
                z += 6
            elif rng.random() < density:
                z += 2 * _vehicle(scene, rng, s, z, heading + rng.gauss(0, 0.02))
            z += rng.uniform(3, 26)
    if street.crossing is not None and rng.random() < 0.6:
        s, turn = rng.uniform(-12, 12), pick(rng, (np.pi / 2, -np.pi / 2))
        z = street.crossing[0] + (2.4 if turn > 0 else street.crossing[1] - street.crossing[0] - 2.6)
        _vehicle(scene, rng, s, z - 2.2, turn + rng.gauss(0, 0.08))


def _rider(scene: Scene, rng: Rng, s: float, z: float, heading: float) -> None:
    draw = people.bicycle if rng.random() < 0.6 else people.motorcycle
    scene.stand(s, z, partial(draw, rng=rng, rider=True), (0.3, 0.85, 1.6), heading)


def _walkers(scene: Scene, side: Side, rng: Rng) -> None:
    """People on the pavement, alone and in twos and threes."""
    count = rng.randrange(9 if side.style == "town" else 4)
    while count > 0:
        z, heading = rng.gammavariate(2.0, 11.0) + 4.5, pick(rng, (0.0, np.pi)) + rng.gauss(0, 0.3)
        group = pick(rng, (1, 1, 2, 3))
        for k in range(group):
            s = side.sign * side.walk + rng.uniform(-0.9, 0.9) + 0.35 * k
            if z < 90 and scene.street.free(z, margin=-1):
                scene.stand(s, z + 0.3 * k, partial(people.pedestrian, rng=rng), (0.2, 0.2, 1.75), heading)
        count -= group


def _crossers(scene: Scene, rng: Rng) -> None:
    """People and riders who cross the road."""
    street = scene.street
    for z, chance in (
        (street.zebra, 0.75),
        (street.crossing and street.crossing[0] + 2.5, 0.35),
        (rng.uniform(9, 40), 0.25),
    ):
        if not z or rng.random() > chance:
            continue
        for _ in range(rng.randrange(1, 5)):
            s, turn = (
                rng.uniform(-street.left.edge, street.right.edge),
                pick(rng, (np.pi / 2, -np.pi / 2)) + rng.gauss(0, 0.2),
            )
            depth = z + rng.uniform(0.4, 3.0)
            if rng.random() < 0.22:
                _rider(scene, rng, s, depth, turn)
            else:
                scene.stand(s, depth, partial(people.pedestrian, rng=rng), (0.2, 0.2, 1.75), turn)
