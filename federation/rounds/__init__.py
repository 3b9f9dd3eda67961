"""Flower pieces: messages (`flower`), a member's app (`client_app`), the platform's strategy (`strategy`)."""
