"""Fill holes in photos of faces: holes, search of z, blending, whole photos."""
