"""Machines, disks, networks and images as bytes; knows nothing of Azure or of templates."""
