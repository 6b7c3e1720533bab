package scenarios

import "github.com/fedlab-dev/fedlab/lab/traffic"

// Mutation makes one thing wrong on purpose: a run with it must not hold. It
// shows that a scenario can fail.
type Mutation string

const (
	// SkipTaint leaves an authority untainted that a scenario taints.
	SkipTaint Mutation = "skip-taint"
	// KeepOldBundle leaves an authority in the bundle that a scenario revokes.
	KeepOldBundle Mutation = "keep-old-bundle"
	// AcceptAny has each call recorded as answered.
	AcceptAny Mutation = "accept-any"
	// NeverRefresh keeps the truster from fetching, from the first step on and until
	// the scenario itself gives the endpoint other settings; what it forces is left
	// out.
	NeverRefresh Mutation = "never-refresh"
	// RecordNothing loses the record of the traffic.
	RecordNothing Mutation = "record-nothing"
	// RecoverEarly undoes a fault as soon as it is felt.
	RecoverEarly Mutation = "recover-early"
)

// Mutations returns all mutations.
func Mutations() []Mutation {
	return []Mutation{SkipTaint, KeepOldBundle, AcceptAny, NeverRefresh, RecordNothing, RecoverEarly}
}

// spoil changes a record as the mutation says.
func (m Mutation) spoil(s *traffic.Stream) {
	switch m {
	case RecordNothing:
		s.Calls = nil
	case AcceptAny:
		for i := range s.Calls {
			s.Calls[i].Outcome = traffic.Answered
		}
	}
}
