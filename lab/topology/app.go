package topology

// App is one of the demo programs that fedlab brings along: what the lab file
// may name under "app", and the names it has inside a cluster (those of the
// article that the demo comes from, mission E1).
type App struct {
	// Name is also the folder below apps/ and charts/, and the image's name.
	Name string
	// Path is the path of its SPIFFE ID.
	Path           string
	Namespace      string
	ServiceAccount string
	// Deployment names the Deployment and, where there is one, the Service.
	Deployment string
	// Port is the one that peers or browsers call.
	Port int
	// Calls names the app that this one calls; empty if none.
	Calls string
	// Page is the path of its page in a browser; empty if it has none, and
	// then it cannot be exposed.
	Page string
}

// Apps returns the demo programs, in the order in which documents list them.
func Apps() []App {
	return []App{
		{
			Name:           "stock-quotes",
			Path:           "/server",
			Namespace:      "demo",
			ServiceAccount: "server-service-account",
			Deployment:     "stock-quotes-service",
			Port:           8090,
		},
		{
			Name:           "broker-webapp",
			Path:           "/client",
			Namespace:      "demo",
			ServiceAccount: "client-service-account",
			Deployment:     "broker-webapp",
			Port:           8080,
			Calls:          "stock-quotes",
			Page:           "/quotes",
		},
	}
}
