# Of the services that a line of JSON on standard input names (names), prints those that are not installed.
$settings = @($input)[0] | ConvertFrom-Json
foreach ($name in $settings.names) {
    if (-not (Get-Service -Name $name -ErrorAction SilentlyContinue)) { [Console]::Out.WriteLine($name) }
}
