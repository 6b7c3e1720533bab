package host

import (
	"fmt"
	"strings"
)

// Level says what a finding means for a lab.
type Level int

const (
	// OK needs nothing.
	OK Level = iota
	// Note is worth knowing and stops nothing.
	Note
	// Missing stops a lab.
	Missing
)

// String returns "ok", "note" or "missing".
func (l Level) String() string { return [...]string{"ok", "note", "missing"}[l] }

// MarshalText gives JSON the words of String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is one thing looked at.
type Finding struct {
	// Subject is what was looked at: "memory".
	Subject string `json:"subject"`
	Level   Level  `json:"level"`
	// Seen is what is there.
	Seen string `json:"seen"`
	// Need is what a lab asks for, empty where that is met.
	Need string `json:"need,omitempty"`
	// Cure is what a person does about it, empty where nothing has to be done.
	Cure string `json:"cure,omitempty"`
	// Remedies are what Setup does about it, empty where it can do nothing.
	Remedies []Remedy `json:"-"`
}

// MissingError says that this machine cannot bear the lab as it is.
type MissingError struct {
	// Findings are those at level Missing; at least one.
	Findings []Finding
}

// Error names each thing that is missing, on one line.
func (e *MissingError) Error() string {
	var lacks []string
	for _, f := range e.Findings {
		lacks = append(lacks, fmt.Sprintf("%s (%s; needs %s)", f.Subject, f.Seen, f.Need))
	}
	return "this machine lacks " + strings.Join(lacks, ", ")
}

// Lacks returns a *MissingError with the findings at level Missing, and nil
// when there are none.
func Lacks(findings []Finding) error {
	var lacks []Finding
	for _, f := range findings {
		if f.Level == Missing {
			lacks = append(lacks, f)
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return &MissingError{Findings: lacks}
}
