"""The sandbox provisioner: REST calls in, Pods and Services on Kubernetes out, through kubectl.

Arrows point one way (a test holds that)::

    provisioner → api → lifecycle → {manifests, status, access} → kubectl → failures → errors
"""
