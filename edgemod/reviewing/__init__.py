"""People at the review queue: what they are shown, what they answer, what their answers say."""
