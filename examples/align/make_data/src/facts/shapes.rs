//! Polygons and the regular solids, whose facts follow from formulas that the tests apply.

use super::{Topic, relation, row};

/// Convex polygons: sides, corners, sum of the angles in degrees, diagonals.
pub const POLYGONS: Topic = Topic {
    name: "polygons",
    relations: [
        relation(
            "sides",
            [
                ("{E} has {v} sides.", "It has {v} sides."),
                ("The number of sides of {e} is {v}.", "The number of its sides is {v}."),
                ("{E} is a shape with {v} sides.", "It is a shape with {v} sides."),
            ],
        ),
        relation(
            "corners",
            [
                ("{E} has {v} corners.", "It has {v} corners."),
                ("The number of corners of {e} is {v}.", "The number of its corners is {v}."),
                ("{E} is a shape with {v} corners.", "It is a shape with {v} corners."),
            ],
        ),
        relation(
            "angles",
            [
                ("The angles of {e} add up to {v} degrees.", "Its angles add up to {v} degrees."),
                (
                    "The sum of the angles of {e} is {v} degrees.",
                    "The sum of its angles is {v} degrees.",
                ),
                (
                    "In {e}, the angles add up to {v} degrees.",
                    "In it, the angles add up to {v} degrees.",
                ),
            ],
        ),
        relation(
            "diagonals",
            [
                ("{E} has {v} diagonals.", "It has {v} diagonals."),
                ("The number of diagonals of {e} is {v}.", "The number of its diagonals is {v}."),
                ("{E} is a shape with {v} diagonals.", "It is a shape with {v} diagonals."),
            ],
        ),
    ],
    entities: &[
        row("the triangle", ["3", "3", "180", "0"]),
        row("the square", ["4", "4", "360", "2"]),
        row("the pentagon", ["5", "5", "540", "5"]),
        row("the hexagon", ["6", "6", "720", "9"]),
        row("the heptagon", ["7", "7", "900", "14"]),
        row("the octagon", ["8", "8", "1080", "20"]),
        row("the decagon", ["10", "10", "1440", "35"]),
    ],
    not_false: &[],
};

/// The five regular solids: faces, edges, corners, shape of a face.
pub const SOLIDS: Topic = Topic {
    name: "solids",
    relations: [
        relation(
            "faces",
            [
                ("{E} has {v} faces.", "It has {v} faces."),
                ("The number of faces of {e} is {v}.", "The number of its faces is {v}."),
                ("{E} is a shape with {v} faces.", "It is a shape with {v} faces."),
            ],
        ),
        relation(
            "edges",
            [
                ("{E} has {v} edges.", "It has {v} edges."),
                ("The number of edges of {e} is {v}.", "The number of its edges is {v}."),
                ("{E} is a shape with {v} edges.", "It is a shape with {v} edges."),
            ],
        ),
        relation(
            "corners",
            [
                ("{E} has {v} corners.", "It has {v} corners."),
                ("The number of corners of {e} is {v}.", "The number of its corners is {v}."),
                ("{E} is a shape with {v} corners.", "It is a shape with {v} corners."),
            ],
        ),
        relation(
            "face",
            [
                ("Each face of {e} is {v}.", "Each of its faces is {v}."),
                ("The faces of {e} have the shape of {v}.", "Its faces have the shape of {v}."),
                ("The shape of each face of {e} is {v}.", "The shape of each face is {v}."),
            ],
        ),
    ],
    entities: &[
        row("the tetrahedron", ["4", "6", "4", "a triangle"]),
        row("the cube", ["6", "12", "8", "a square"]),
        row("the octahedron", ["8", "12", "6", "a triangle"]),
        row("the dodecahedron", ["12", "30", "20", "a pentagon"]),
        row("the icosahedron", ["20", "30", "12", "a triangle"]),
    ],
    not_false: &[],
};
