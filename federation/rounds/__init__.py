"""Flower pieces: messages (`flower`), a member's `ClientApp` (`client_app`), the platform's `PhaseStrategy` (`strategy`)."""
