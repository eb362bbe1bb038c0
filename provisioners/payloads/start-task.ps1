# Starts a command as a task of SYSTEM and does not wait for it. A line of JSON on standard input names it (name, command).
$ErrorActionPreference = 'Stop'
$settings = @($input)[0] | ConvertFrom-Json
$scheduler = New-Object -ComObject Schedule.Service
$scheduler.Connect()
$folder = $scheduler.GetFolder('\')
$definition = $scheduler.NewTask(0)
$definition.Principal.RunLevel = 1
$definition.Settings.ExecutionTimeLimit = 'PT0S'
$definition.Settings.DisallowStartIfOnBatteries = $false
$definition.Settings.StopIfGoingOnBatteries = $false
$action = $definition.Actions.Create(0)
$action.Path = Join-Path $env:SystemRoot 'System32\cmd.exe'
$action.Arguments = "/c `"$($settings.command)`""
$task = $folder.RegisterTaskDefinition($settings.name, $definition, 6, 'SYSTEM', $null, 5, $null)
[void]$task.Run($null)
