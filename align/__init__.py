"""Find faces in photos and cut them out upright, centred and all of one size; needs dlib, not torch."""
