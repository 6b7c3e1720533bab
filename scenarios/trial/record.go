package trial

import (
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// RecordVersion is the version of the JSON that a Record is written as.
const RecordVersion = "fedlab.dev/v1alpha2"

// Record is all that a run of a scenario has seen. Verdicts are computed from it
// and from nothing else.
type Record struct {
	APIVersion string `json:"apiVersion"` // RecordVersion
	Kind       string `json:"kind"`       // ScenarioRecord
	Scenario   string `json:"scenario"`
	Claim      string `json:"claim"`
	Lab        string `json:"lab"`
	// On is the relationship that it ran on.
	On On `json:"on"`
	// Labels are those of the scenario; Sources are where the rules come from that
	// it rests on.
	Labels  []string `json:"labels"`
	Sources []string `json:"sources,omitempty"`
	// Mutation names what was made wrong on purpose; empty in a real run.
	Mutation string    `json:"mutation,omitempty"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	// Steps are in the order in which they ran; the last one that has an Error
	// ended the run. Those that put the lab back have Restore set, and run always.
	Steps []Step `json:"steps"`
	// Windows are what was broken, and from when to when.
	Windows []Window `json:"windows"`
	// Marks are moments worth a line in a picture: an authority that was
	// activated, a bundle that arrived.
	Marks []Mark `json:"marks"`
	// Measures hold each wait against its bound.
	Measures []Measure `json:"measures"`
	// Holdings are looks at which authorities a trust domain's server has of its
	// own or holds of others: the first, those that saw a change, and the last.
	Holdings []Holding `json:"holdings"`
	// Looks are what there was to see of facts that the scenario claims something of, in the
	// order of time.
	Looks    []Look           `json:"looks,omitempty"`
	Streams  []traffic.Stream `json:"streams"`
	Verdicts []Verdict        `json:"verdicts"`
	// Slack is what the machine needed for itself.
	Slack Slack `json:"slack"`
	// Result is the worst of those of measures and verdicts; a step that failed does not hold.
	Result Result `json:"result"`
	// Error says why the run ended early or did not put the lab back; empty
	// otherwise.
	Error string `json:"error,omitempty"`
}

// Step is one step as it went.
type Step struct {
	// Name completes the sentence "the next step is to …".
	Name string `json:"name"`
	// Look says where a person can see it; may be empty.
	Look    string    `json:"look,omitempty"`
	Restore bool      `json:"restore,omitempty"`
	Began   time.Time `json:"began"`
	// Took does not count what a person was waited for.
	Took time.Duration `json:"took"`
	// Seen are observations, in words, in their order.
	Seen  []string `json:"seen,omitempty"`
	Error string   `json:"error,omitempty"`
}

// Window is a fault: the times are zero for what was not reached.
type Window struct {
	Name      string    `json:"name"`
	Injected  time.Time `json:"injected"`
	Felt      time.Time `json:"felt,omitzero"`
	Recovered time.Time `json:"recovered,omitzero"`
	Healed    time.Time `json:"healed,omitzero"`
}

// Mark is a moment.
type Mark struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// Measure is a wait and the bound that was derived for it.
type Measure struct {
	What string `json:"what"`
	// Took is what was measured, from At. What calls show took until the last one began that
	// showed otherwise.
	At   time.Time     `json:"at"`
	Took time.Duration `json:"took"`
	// Bound is what SPIRE's arithmetic allows, Slack what the machine needed on top.
	Bound time.Duration `json:"bound"`
	Slack time.Duration `json:"slack"`
	// Formula says what Bound is made of.
	Formula string `json:"formula"`
	// Propagation is set where this is the way of a bundle from one trust domain
	// to another, which bench compares with Bound.
	Propagation bool   `json:"propagation,omitempty"`
	Result      Result `json:"result"`
}

// Holding is which authorities a server has of a trust domain at a time.
type Holding struct {
	At     time.Time `json:"at"`
	Holder string    `json:"holder"` // the trust domain whose server was asked
	Of     string    `json:"of"`     // its own name, or a trust domain that it holds a bundle of
	// State compares the held bundle with its source; empty where Of is Holder or
	// the source was not asked.
	State federation.State `json:"state,omitempty"`
	// X509 and JWT are the IDs of the authorities.
	X509 []string `json:"x509,omitempty"`
	JWT  []string `json:"jwt,omitempty"`
}

// Look is one look at a fact.
type Look struct {
	Of string    `json:"of"`
	At time.Time `json:"at"`
	// Took is how long it took to look.
	Took time.Duration `json:"took"`
	// Seen is what there was to see; empty where Error says why there was nothing.
	Seen  string `json:"seen,omitempty"`
	Error string `json:"error,omitempty"`
}

// Verdict is a claim on the traffic, or with the rule Looked on what was seen of the fact that
// Stream names, and how it was judged.
type Verdict struct {
	traffic.Verdict
	// Want is what looks must see, Well what they see while nothing is wrong.
	Want   []string `json:"want,omitempty"`
	Well   string   `json:"well,omitempty"`
	Result Result   `json:"result"`
	// Why says what in the record speaks against it, or how late it is; empty when it holds.
	Why string `json:"why,omitempty"`
}
