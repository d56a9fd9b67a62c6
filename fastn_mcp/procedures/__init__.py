"""The composed operations, in the order in which tools are listed. They come before the plain ones: look here first."""
