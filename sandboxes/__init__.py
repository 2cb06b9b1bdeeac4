"""The sandbox provisioner: REST calls in, Pods and Services on Kubernetes out, through kubectl.

Arrows point one way (a test holds that)::

    provisioner → api → lifecycle → {manifests, status, access} → kubectl → failures → errors
"""

# The program's version; all else that names it reads it here.
__version__ = "0.2.0"
