"""`fairlead package`: a container image of a user's model class, without a Dockerfile of the user's.

project       what lies in a directory: the class, its requirements, its name; told from the sources, which are never run
dockerfile    the Dockerfile, what stays out of the image, and the InferenceService to apply; pure text
builder       docker (or podman) and kind
"""
