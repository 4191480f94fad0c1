"""Pretrained networks that describe images, shared by tasks."""
