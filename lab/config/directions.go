package config

import "slices"

// direction is one relationship as the file writes it.
type direction struct{ truster, trusted string }

// relationship is one direction that the file asks for, with the entry that
// asks for it.
type relationship struct {
	direction
	entry int
}

// relationships returns what the file asks for, in its order, without entries
// that are not written out. A direction that an entry writes by name is not that
// of a shape any more, and of two shapes the first has it.
func (s Spec) relationships() []relationship {
	taken := map[direction]bool{}
	for _, f := range s.Federation {
		if f.Shape == "" {
			for _, d := range f.directions() {
				taken[d] = true
			}
		}
	}
	var all []relationship
	for i, f := range s.Federation {
		for _, d := range f.directions() {
			if f.Shape == "" || !taken[d] {
				all = append(all, relationship{d, i})
			}
			taken[d] = true
		}
	}
	return all
}

// directions returns the relationships that an entry stands for; none when it is
// not written out.
func (f Federation) directions() []direction {
	var all []direction
	both := func(a, b string) {
		if a != "" && b != "" {
			all = append(all, direction{a, b}, direction{b, a})
		}
	}
	switch {
	case f.From != "" && f.To != "":
		return []direction{{f.From, f.To}}
	case f.Shape == tree:
		for _, branch := range f.Branches {
			for _, below := range branch[min(1, len(branch)):] {
				both(branch[0], below)
			}
		}
	case f.Shape != "":
		of := f.each()
		for j, b := range of {
			for i, a := range of[:j] {
				if f.joins(i, j) {
					both(a, b)
				}
			}
		}
	case len(f.Between) == 2:
		both(f.Between[0], f.Between[1])
	}
	return all
}

// each returns the trust domains of a shape. One that is there twice is told so
// once, not for each direction that would be there twice.
func (f Federation) each() []string {
	var each []string
	for _, td := range f.Of {
		if !slices.Contains(each, td) {
			each = append(each, td)
		}
	}
	return each
}

// joins reports whether the shape joins the i-th trust domain and the j-th, which
// comes later.
func (f Federation) joins(i, j int) bool {
	switch f.Shape {
	case mesh:
		return true
	case hub:
		return i == 0
	case chain:
		return i == j-1
	case pairs:
		return i == j-1 && j%2 == 1
	}
	return false
}

// trust is who trusts whom.
type trust map[direction]bool

func trustOf(relationships []relationship) trust {
	t := make(trust, len(relationships))
	for _, r := range relationships {
		t[r.direction] = true
	}
	return t
}

// mutual reports whether workloads of two trust domains can verify each other.
func (t trust) mutual(a, b string) bool { return t.lack(a, b) == "" }

// lack returns what to add to spec.federation so that two trust domains trust
// each other; nothing when they do.
func (t trust) lack(a, b string) string {
	there, back := t[direction{a, b}], t[direction{b, a}]
	switch {
	case a == b || there && back:
		return ""
	case there:
		return "{from: " + b + ", to: " + a + "}"
	case back:
		return "{from: " + a + ", to: " + b + "}"
	}
	return "{between: [" + a + ", " + b + "]}"
}
