"""Which networks of timm and torchvision the commands on real networks take, step by step."""
