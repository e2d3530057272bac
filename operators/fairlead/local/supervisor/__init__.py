"""`fairlead up`: the processes of the laptop cluster, started together, watched, and ended together.

home       the directory, its lock, and what other commands may know of a running cluster
manifests  CRDs and runtimes that every cluster has; the user's files
child      one process of the control plane: started, restarted with back-off, ended
launch     a Python process that imports while the API server starts
watchdog   what is left when the supervisor is killed
cluster    all of them, in their order
view       what the terminal shows
daemon     `-d`, `fairlead down`
"""
