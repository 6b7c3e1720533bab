// Package traffic is the record of calls that go on while things break, what the
// programs that make the calls are told, and the verdicts on the record.
//
// Verdicts are pure: a record that was stored can be judged again without a
// cluster. The package refuses to know how a probe is reached, and what is broken
// meanwhile.
package traffic

import "time"

// Outcome is how a call ended.
type Outcome string

// The outcomes. All but Answered are the classes by which the demo programs name
// a failure (apps/internal/diagnosis).
const (
	Answered         Outcome = "answered"
	NoIdentity       Outcome = "no-identity"       // the caller has no SVID
	Expired          Outcome = "expired"           // an SVID is not valid now
	NotFederated     Outcome = "not-federated"     // the caller holds no bundle of the server's trust domain
	UnknownAuthority Outcome = "unknown-authority" // the bundle held does not verify the server
	IdentityRefused  Outcome = "identity-refused"  // the server is not whom the caller wants
	RefusedByServer  Outcome = "refused-by-server" // the server does not accept the caller's SVID
	NotPermitted     Outcome = "not-permitted"     // the server knows the caller and says no
	Unreachable      Outcome = "unreachable"       // there is no connection
	NoAnswer         Outcome = "no-answer"         // connected, but nothing came in time
	ServerFailed     Outcome = "server-failed"     // any other answer
)

// Outcomes returns all outcomes.
func Outcomes() []Outcome {
	return []Outcome{
		Answered, NoIdentity, Expired, NotFederated, UnknownAuthority, IdentityRefused, RefusedByServer,
		NotPermitted, Unreachable, NoAnswer, ServerFailed,
	}
}

// Connection says on what a call of a stream travels.
type Connection string

const (
	// Fresh makes a connection, and so a handshake, for each call: what is held
	// now decides.
	Fresh Connection = "fresh"
	// Kept makes one connection and keeps it for as long as it lasts; a call that
	// finds it lost makes another.
	Kept Connection = "kept"
	// Resumed makes a connection for each call and offers the TLS session of the
	// one before, as a client does that wants to save a handshake.
	Resumed Connection = "resumed"
)

// Order is what a probe is asked to do: to call one server at a set rate until
// it is told to stop.
type Order struct {
	// Name is unique among the streams of a probe.
	Name string `json:"name"`
	// Address is the server's host:port, Server whom it must prove to be.
	Address string `json:"address"`
	Server  string `json:"server"`
	// Every is the time from the start of a call to the start of the next one. A
	// call that takes longer holds up the next.
	Every time.Duration `json:"every"`
	// Within is the longest that one call may take, its handshake included.
	Within     time.Duration `json:"within"`
	Connection Connection    `json:"connection"`
}

// Party is one side of a call as the other one has authenticated it.
type Party struct {
	ID string `json:"id"`
	// Serial is that of the X509-SVID, in lower-case hexadecimal.
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
	// Authority is the subject key ID, in lower-case hexadecimal, of the root
	// that the chain ends in: what SPIRE calls the authority's ID.
	Authority string `json:"authority"`
}

// Call is one call as its caller recorded it.
type Call struct {
	// Number counts the calls of a stream from 1.
	Number int `json:"number"`
	// At is when the call began.
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"`
	Outcome Outcome       `json:"outcome"`
	// Detail is the error in words; empty for an answer.
	Detail string `json:"detail,omitempty"`
	// Server is whom the caller authenticated; nil where it came to none.
	Server *Party `json:"server,omitempty"`
	// Client is the caller as the server says in its answer that it authenticated
	// it; nil without one.
	Client *Party `json:"client,omitempty"`
	// Resumed says that the handshake resumed an earlier session.
	Resumed bool `json:"resumed,omitempty"`
}

// Stream is all calls of one order.
type Stream struct {
	Order Order `json:"order"`
	// From names the probe: its trust domain, or the synthetic one.
	From  string    `json:"from"`
	Began time.Time `json:"began"`
	// Ended is zero while it goes on.
	Ended time.Time `json:"ended,omitzero"`
	Calls []Call    `json:"calls"`
}

// Holding is what a probe has from its Workload API.
type Holding struct {
	// Self is its X509-SVID; nil without one. Its Authority is empty where no
	// held bundle verifies it.
	Self *Party `json:"self,omitempty"`
	// Bundles gives, by trust domain, the subject key IDs of the X.509
	// authorities, sorted.
	Bundles map[string][]string `json:"bundles"`
	// JWTBundles gives, by trust domain, the key IDs of the JWT authorities,
	// sorted.
	JWTBundles map[string][]string `json:"jwtBundles"`
	// Problem says why there is no SVID.
	Problem string `json:"problem,omitempty"`
}
