"""Face alignment: find the faces in photos and cut them out upright and at one size. Needs dlib but not torch."""
