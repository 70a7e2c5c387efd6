"""Readers of head models of other projects: FLAME, GNM Head and ICT-FaceKit."""
