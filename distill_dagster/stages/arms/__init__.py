"""Further arms beside the control: what else the student's twin might have learned from in the teacher's place."""
